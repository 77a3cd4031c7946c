package minisock

import (
	"net/netip"
	"testing"
	"time"
)

// pressed gives the table a SYN while packets come faster than they are served, past
// what whoever asks is given, and reports whether it was answered.
func (r *rig) pressed(p pair) bool {
	r.Helper()
	for r.t.freeCookies.allow(r.now) {
	}
	s := describe(r, raw(p, seg{flags: syn, seq: irs, opts: linuxSYN()}), false, 0)
	s.Pressed = true
	before := len(r.sent)
	res := r.t.Inbound(&s, r.now)
	answered := len(r.sent) > before
	if want := map[bool]Cause{true: CookieSent, false: SYNSpared}[answered]; res.Verdict != Dropped || res.Cause != want {
		r.Fatalf("answered %v: verdict %v, cause %v", answered, res.Verdict, res.Cause)
	}
	return answered
}

// crammed is a table whose destination has all its half-open connections.
func crammed(t *testing.T, p pair) *rig {
	r := newRig(t, func(o *Options) { o.PerDestination = 1 })
	other := p
	other.src = netip.AddrPortFrom(p.dst.Addr(), 1)
	r.in(other, seg{flags: syn, seq: irs})
	r.sent = nil
	return r
}

// from is the flow from another port.
func (p pair) from(port int) pair {
	p.src = netip.AddrPortFrom(p.src.Addr(), uint16(port))
	return p
}

// TestSpare: who finished a handshake has cookies at a rate of its own, a newcomer one
// in a while, and both all they want when the pressure is over.
func TestSpare(t *testing.T) {
	const burst = provenRate / 10
	for _, c := range []struct {
		name   string
		proven bool
		most   int // at one moment
	}{
		{"newcomer", false, 1},
		{"proven", true, burst + 1}, // and one as a newcomer
	} {
		t.Run(c.name, func(t *testing.T) {
			families(t, func(t *testing.T, p pair) {
				r := crammed(t, p)
				if c.proven {
					r.open(p).establish()
					r.sent = nil
				}
				for round := range 3 {
					answered := 0
					for i := range 2 * burst {
						if r.pressed(p.from(i + 1)) {
							answered++
						}
					}
					if answered != c.most {
						t.Fatalf("round %d: %d answered, want %d", round, answered, c.most)
					}
					r.now += time.Second
				}
				if n := r.counted(SYNSpared); n != 3*(2*burst-c.most) {
					t.Errorf("%d counted as spared", n)
				}
				if n, want := r.counted(SYNProven), 3*(c.most-1); n != want {
					t.Errorf("%d counted as proven, want %d", n, want)
				}
				for i := range 2 * burst {
					r.sent = nil
					res, _ := r.in(p.from(i+1), seg{flags: syn, seq: irs})
					r.verdict(res, Dropped, CookieSent)
				}
			})
		})
	}
}

// TestSpareWithRoom: a SYN that finds room has its record, pressed or not, and so has
// the cookie that comes back.
func TestSpareWithRoom(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		for i := range 100 {
			s := describe(t, raw(p.from(i+1), seg{flags: syn, seq: irs}), false, 0)
			s.Pressed = true
			r.t.Inbound(&s, r.now)
		}
		if n := len(r.sent); n != 100 || r.counted(SYNAdmitted) != 100 || r.counted(SYNSpared) != 0 {
			t.Errorf("%d answers, %d records, %d spared", n, r.counted(SYNAdmitted), r.counted(SYNSpared))
		}
		r = crammed(t, p)
		if !r.pressed(p) {
			t.Fatal("a newcomer had no cookie")
		}
		s := describe(t, raw(p, seg{flags: ack, seq: irs + 1, ack: r.reply().seq + 1}), false, 0)
		s.Pressed = true
		r.verdict(r.t.Inbound(&s, r.now), Create, None)
	})
}

// TestSpareNobody: what comes at a rate that is no flood is not spared.
func TestSpareNobody(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := crammed(t, p)
		s := describe(t, raw(p, seg{flags: syn, seq: irs}), false, 0)
		s.Pressed = true
		for range 3 * freeRate / 10 {
			r.t.Inbound(&s, r.now)
		}
		if n := r.counted(CookieSent); n != freeRate/10+1 { // and one to the newcomer
			t.Errorf("%d answered at once", n)
		}
		r.now += 50 * time.Millisecond
		for range freeRate {
			r.t.Inbound(&s, r.now)
		}
		if n := r.counted(CookieSent); n != freeRate/10+freeRate/20+1 {
			t.Errorf("%d answered in 50 ms", n)
		}
	})
}

// TestSpareNeighbours: a /64 is one source, other addresses are others.
func TestSpareNeighbours(t *testing.T) {
	at := func(p pair, a string) pair {
		p.src = netip.AddrPortFrom(netip.MustParseAddr(a), 9)
		return p
	}
	for _, c := range []struct {
		p     pair
		same  bool
		other string
	}{
		{flow4, true, "198.18.0.7"},
		{flow4, false, "198.18.0.8"},
		{flow6, true, "fd00:18::8"},
		{flow6, false, "fd00:18:0:1::7"},
	} {
		r := crammed(t, c.p)
		r.open(c.p).establish()
		r.pressed(at(c.p, c.other))
		if got := r.counted(SYNProven) == 1; got != c.same {
			t.Errorf("%s beside %s: proven %v", c.other, c.p.src.Addr(), got)
		}
	}
}

// TestSpareFlood: a flood of some thousand sources, then one of all there are, leaves
// the rate of newcomers as it is, and their way free in the first case.
func TestSpareFlood(t *testing.T) {
	const second = newcomerRate / 10 // tenths: the length of a burst
	for _, c := range []struct {
		name                  string
		sources, least, most  int
		strangers, strangersN int // answered at least
	}{
		{"some", 4000, 4000, 4000, 98, 100},
		{"all", 40_000, second, second, 0, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := crammed(t, flow4)
			r.now += time.Second
			p := flow4
			send := func(net byte, i int) bool {
				p.src = addrPort([4]byte{10, net, byte(i >> 8), byte(i)}, 1234)
				return r.pressed(p)
			}
			answered := 0
			for range 3 {
				for i := range c.sources {
					if send(0, i) {
						answered++
					}
				}
			}
			// A few share both slots with others.
			if answered < c.least*98/100 || answered > c.most {
				t.Errorf("%d of %d sources answered", answered, c.sources)
			}
			answered = 0
			for i := range c.strangersN {
				if send(1, i) {
					answered++
				}
			}
			if answered < c.strangers {
				t.Errorf("%d of %d strangers answered", answered, c.strangersN)
			}
		})
	}
}

// TestSpareAllocs: not even a flood allocates.
func TestSpareAllocs(t *testing.T) {
	r := crammed(t, flow4)
	r.t.sink = &quiet{}
	s := describe(t, raw(flow4, seg{flags: syn, seq: irs, opts: linuxSYN()}), false, 0)
	s.Pressed = true
	if n := testing.AllocsPerRun(100, func() { r.t.Inbound(&s, r.now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
