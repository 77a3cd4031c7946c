package minisock

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// TestTranslate: both directions of a connection, over the wrap of all four numbers.
func TestTranslate(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		c.now += 5 * time.Millisecond
		// The stack's bytes 0x7fffff01... are the client's isn+1...
		res, g := c.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 9, opts: tsOpt(stackTS+5, clientTS), data: 1000})
		c.verdict(res, Pass, None)
		if g.seq != c.isn+1 || g.ack != irs+1 || g.tsVal != c.ts+5 || g.tsEcr != clientTS || res.Queue != 3 {
			t.Errorf("out %+v queue %d", g, res.Queue)
		}
		sack := []byte{5, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}
		for i := range uint32(4) {
			binary.BigEndian.PutUint32(sack[2+4*i:], c.isn+100*i)
		}
		// A NOP first, so that every option stands at an odd offset.
		opts := append([]byte{1}, tsOpt(clientTS+7, c.ts+5)[2:]...)
		opts = append(opts, sack...)
		opts = append(opts[:31], 0)
		res, g = c.inQueue(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 501, wnd: 77, opts: opts, data: 20}, 6)
		c.verdict(res, Pass, None)
		if g.seq != irs+1 || g.ack != stackISN+501 || g.tsVal != clientTS+7 || g.tsEcr != stackTS+5 {
			t.Errorf("in %+v", g)
		}
		for i := range uint32(4) {
			if v := binary.BigEndian.Uint32(g.opts[13+4*i:]); v != stackISN+100*i {
				t.Errorf("SACK edge %d is %#x", i, v)
			}
		}
		res, _ = c.out(p, seg{flags: ack, seq: stackISN + 1001, ack: irs + 21, wnd: 9, opts: tsOpt(stackTS+6, clientTS)})
		if res.Queue != 6 {
			t.Error("it does not leave by the queue that it came in by")
		}
	})
}

// TestTranslateRandom compares headers of random layout, and their checksums, with
// packets built from scratch.
func TestTranslateRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 20000 {
		p := flow4
		if n%2 == 1 {
			p = flow6
		}
		r := &record{connection: connection{seqD: rnd.Uint32(), tsD: rnd.Uint32()}}
		if n%7 == 0 {
			r.seqD = 0
		}
		s := seg{flags: ack, seq: rnd.Uint32(), ack: rnd.Uint32(), wnd: uint16(rnd.Uint32()), data: rnd.IntN(9)}
		want := s
		outward := n%3 == 0
		var sackD, valD, ecrD uint32
		if outward {
			want.seq += r.seqD
			valD = r.tsD
		} else {
			want.ack -= r.seqD
			sackD, ecrD = -r.seqD, -r.tsD
		}
		s.opts, want.opts = randomOptions(rnd, valD, ecrD, sackD)
		b, w := raw(p, s), raw(p, want)
		partial := n%5 == 0
		d := describe(t, b, partial, 0)
		var g segment
		g.read(&d, outward)
		if outward {
			r.outward(&g)
		} else {
			r.inward(&g)
		}
		at := len(b) - s.data - len(s.opts) - 20
		if partial {
			binary.BigEndian.PutUint16(w[at+16:], binary.BigEndian.Uint16(raw(p, s)[at+16:]))
		} else if naive(b[at:], pseudo(b, at)) != 0xffff {
			t.Fatalf("checksum of %x", b)
		}
		binary.BigEndian.PutUint16(b[at+16:], 0)
		binary.BigEndian.PutUint16(w[at+16:], 0)
		if string(b) != string(w) {
			t.Fatalf("packet %d\n%x, want\n%x", n, b, w)
		}
	}
}

// randomOptions makes options before and after a translation.
func randomOptions(rnd *rand.Rand, valD, ecrD, sackD uint32) (a, b []byte) {
	both := func(x ...byte) { a, b = append(a, x...), append(b, x...) }
	word := func(d uint32) {
		v := rnd.Uint32()
		a, b = binary.BigEndian.AppendUint32(a, v), binary.BigEndian.AppendUint32(b, v+d)
	}
	ts := false
	for len(a) < 36 {
		switch rnd.IntN(5) {
		case 0:
			both(1)
		case 1:
			if !ts && len(a) <= 30 {
				ts = true
				both(8, 10)
				word(valD)
				word(ecrD)
			}
		case 2:
			if n := rnd.IntN(3) + 1; len(a)+2+8*n <= 40 {
				both(5, byte(2+8*n))
				for range 2 * n {
					word(sackD)
				}
			}
		case 3:
			both(254, 4, byte(rnd.Uint32()), byte(rnd.Uint32()))
		case 4:
			if rnd.IntN(4) == 0 {
				goto end
			}
		}
	}
end:
	for len(a)%4 != 0 {
		both(0)
	}
	return a, b
}

// TestGuard: each kind of segment that a connection must survive or take.
func TestGuard(t *testing.T) {
	next := irs + 1
	ts := func(c *conn) []byte { return tsOpt(clientTS+1, c.ts) }
	for name, tc := range map[string]struct {
		seg     func(c *conn) seg
		verdict Verdict
		cause   Cause
		answer  bool // a challenge ACK
		state   State
	}{
		"data":               {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, opts: ts(c), data: 9} }, Pass, None, false, Established},
		"data with URG":      {func(c *conn) seg { return seg{flags: ack | urg, seq: next, ack: c.isn + 1, data: 9} }, Pass, None, false, Established},
		"keepalive":          {func(c *conn) seg { return seg{flags: ack, seq: next - 1, ack: c.isn + 1, opts: ts(c)} }, Pass, None, false, Established},
		"behind the window":  {func(c *conn) seg { return seg{flags: ack, seq: next + 1<<20, ack: c.isn + 1, data: 9} }, Pass, None, false, Established},
		"SYN in the window":  {func(*conn) seg { return seg{flags: syn, seq: next + 10} }, Dropped, ChallengedSYN, true, Established},
		"old SYN":            {func(*conn) seg { return seg{flags: syn, seq: irs, opts: linuxSYN()} }, Dropped, ChallengedSYN, true, Established},
		"SYN-ACK":            {func(c *conn) seg { return seg{flags: syn | ack, seq: next, ack: c.isn + 1} }, Dropped, ChallengedSYN, true, Established},
		"exact RST":          {func(*conn) seg { return seg{flags: rst, seq: next} }, Pass, None, false, Free},
		"exact RST-ACK":      {func(c *conn) seg { return seg{flags: rst | ack, seq: next, ack: c.isn + 1} }, Pass, None, false, Free},
		"RST in the window":  {func(*conn) seg { return seg{flags: rst, seq: next + 100} }, Dropped, ChallengedRST, true, Established},
		"RST at the edge":    {func(*conn) seg { return seg{flags: rst, seq: next + 600<<7 - 1} }, Dropped, ChallengedRST, true, Established},
		"RST behind it":      {func(*conn) seg { return seg{flags: rst, seq: next + 600<<7} }, Dropped, StrayRST, false, Established},
		"old RST":            {func(*conn) seg { return seg{flags: rst, seq: next - 1} }, Dropped, StrayRST, false, Established},
		"ACK of nothing":     {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 2, data: 9} }, Dropped, ChallengedACK, true, Established},
		"ACK of long ago":    {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn - 500<<8, data: 9} }, Dropped, ChallengedACK, true, Established},
		"ACK of a while ago": {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn - 500<<8 + 1, data: 9} }, Pass, None, false, Established},
		"old timestamp": {func(c *conn) seg {
			return seg{flags: ack, seq: next, ack: c.isn + 1, opts: tsOpt(clientTS-1, c.ts), data: 9}
		}, Dropped, OldTimestamp, true, Established},
		"no timestamp":        {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, data: 9} }, Pass, None, false, Established},
		"FIN":                 {func(c *conn) seg { return seg{flags: fin | ack, seq: next, ack: c.isn + 1} }, Pass, None, false, CloseWait},
		"FIN out of window":   {func(c *conn) seg { return seg{flags: fin | ack, seq: next + 1<<20, ack: c.isn + 1} }, Pass, None, false, Established},
		"FIN at the edge":     {func(c *conn) seg { return seg{flags: fin | ack, seq: next + 600<<7, ack: c.isn + 1} }, Pass, None, false, CloseWait},
		"xmas":                {func(*conn) seg { return seg{flags: fin | urg | 8, seq: next} }, Dropped, OddFlags, false, Established},
		"SYN and FIN":         {func(*conn) seg { return seg{flags: syn | fin, seq: next} }, Dropped, OddFlags, false, Established},
		"SYN and RST":         {func(*conn) seg { return seg{flags: syn | rst, seq: next} }, Dropped, OddFlags, false, Established},
		"FIN of the old time": {func(c *conn) seg { return seg{flags: fin | ack, seq: next, ack: c.isn + 1, opts: tsOpt(clientTS-9, 0)} }, Dropped, OldTimestamp, true, Established},
	} {
		families(t, func(t *testing.T, p pair) {
			c := newRig(t, nil).open(p).establish()
			c.t.SetOwner(c.h, 5)
			res, _ := c.in(p, tc.seg(c))
			c.verdict(res, tc.verdict, tc.cause)
			if s := c.t.State(c.h); s != tc.state {
				t.Errorf("%s: state %v, want %v", name, s, tc.state)
			}
			if res.Gone != (tc.state == Free) || tc.verdict == Pass && (res.Owner != 5 || res.Handle != c.h) {
				t.Errorf("%s: %+v", name, res)
			}
			if !tc.answer {
				c.silent()
				return
			}
			g := c.reply()
			c.wants(g, p, ack, c.isn+1, next)
			if g.tsVal != c.ts || g.wnd != 600 {
				t.Errorf("%s: %+v", name, g)
			}
			c.in(p, tc.seg(c)) // and at once again: limited
			c.silent()
			c.now += 500 * time.Millisecond
			c.in(p, tc.seg(c))
			c.reply()
		})
	}
}

// TestChallengeRate: all flows together have a limit too.
func TestChallengeRate(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ChallengeRate = 100; o.PerSource = 100 })
	for i := range 60 {
		p := flow4
		p.src = addrPort([4]byte{198, 18, 0, 9}, uint16(1000+i))
		r.open(p).establish()
	}
	for i := range 60 {
		p := flow4
		p.src = addrPort([4]byte{198, 18, 0, 9}, uint16(1000+i))
		r.in(p, seg{flags: syn, seq: 1})
	}
	if n := len(r.sent); n < 9 || n > 11 {
		t.Errorf("%d challenges at once", n)
	}
	if r.counted(ChallengeLimited)+len(r.sent) != 60 {
		t.Error("counters")
	}
}

// TestPAWSAfterSilence: timestamps of a client that was silent for a month say
// nothing.
func TestPAWSAfterSilence(t *testing.T) {
	c := newRig(t, nil).open(flow4).establish()
	old := seg{flags: ack, seq: irs + 1, ack: c.isn + 1, opts: tsOpt(clientTS-100, c.ts), data: 9}
	c.now += 23 * 24 * time.Hour
	res, _ := c.in(flow4, old)
	c.verdict(res, Dropped, OldTimestamp)
	c.now += 2 * 24 * time.Hour
	res, _ = c.in(flow4, old)
	c.verdict(res, Pass, None)
}

// TestCreating: what comes before the endpoint stands waits, within bounds.
func TestCreating(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		c := r.open(p)
		res, _ := r.in(p, c.first(10))
		r.verdict(res, Create, None)
		if !res.Held {
			t.Fatal("first data is not held")
		}
		if _, ok := r.t.Establish(c.h, r.now, nil); ok {
			t.Error("established without the stack's SYN")
		}
		kept := []seg{c.first(10)}
		for i := range 70 {
			s := c.first(10)
			s.seq += uint32(10 * (i + 1))
			res, _ := r.in(p, s)
			if i < 63 {
				r.verdict(res, Hold, None)
				kept = append(kept, s)
			} else {
				r.verdict(res, Dropped, HeldFull)
			}
		}
		for _, s := range []seg{{flags: syn, seq: irs}, {flags: rst, seq: irs + 9}, {flags: ack, seq: irs + 64000, ack: c.isn + 1, data: 9}} {
			if res, _ := r.in(p, s); res.Verdict != Dropped {
				t.Errorf("%+v", res)
			}
		}
		// The stack says what it must not say, and tries twice.
		res, _ = r.out(p, seg{flags: rst, seq: 1})
		r.verdict(res, Swallowed, NotLive)
		r.out(p, seg{flags: syn, seq: 4711, opts: stackSYN()})
		c.create()
		if ok, _ := r.t.Ready(c.h, r.now); ok {
			t.Error("ready with packets kept")
		}
		res, _ = r.in(p, func() seg { s := c.first(10); s.seq += 640; return s }())
		r.verdict(res, Dropped, HeldFull)
		for i, s := range kept {
			b := raw(p, s)
			d := describe(t, b, false, 0)
			r.verdict(r.t.Resume(&d, r.now), Pass, None)
			if g := decode(t, b); g.seq != irs+1+uint32(10*i) || g.ack != stackISN+1 {
				t.Fatalf("resumed %+v", g)
			}
		}
		b := raw(p, c.first(10))
		d := describe(t, b, false, 0)
		r.verdict(r.t.Resume(&d, r.now), Dropped, Late)
		ok, _ := r.t.Ready(c.h, r.now)
		again, _ := r.t.Ready(c.h, r.now)
		if !ok || again || r.t.State(c.h) != Established {
			t.Error("Ready")
		}
		res, _ = r.in(p, c.first(10))
		r.verdict(res, Pass, None)
		r.tick(time.Hour)
		r.silent()
		if r.t.State(c.h) != Established {
			t.Error("a connection ended by a timer")
		}
	})
}

func TestCreateFails(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		for _, expire := range []bool{false, true} {
			r := newRig(t, nil)
			c := r.open(p)
			r.in(p, c.first(10))
			if expire {
				r.tick(10 * time.Second)
				if len(r.gone) != 1 || r.gone[0] != c.h || r.why[0] != CreateExpired {
					t.Errorf("gone %v", r.why)
				}
			} else if !r.t.Fail(c.h) || r.t.Fail(c.h) {
				t.Error("Fail")
			}
			r.wants(r.reply(), p, rst|ack, c.isn+1, irs+1)
			r.empty()
		}
	})
}

// TestReset: RSTs of the stack go out if they are about what was sent.
func TestReset(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		c.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 600, data: 100})
		for _, seq := range []uint32{stackISN, stackISN + 102, stackISN + 1<<30} {
			res, _ := c.out(p, seg{flags: rst, seq: seq})
			c.verdict(res, Dropped, OldResetOut)
		}
		res, g := c.out(p, seg{flags: rst | ack, seq: stackISN + 101, ack: irs + 1})
		c.verdict(res, Pass, None)
		if g.seq != c.isn+101 || !res.Gone {
			t.Errorf("%+v %+v", g, res)
		}
		res, _ = c.out(p, seg{flags: rst | ack, seq: stackISN + 101, ack: irs + 1})
		c.verdict(res, Dropped, NoFlow)
		c.empty()
		if c.t.Release(c.h) || c.t.State(c.h) != Free {
			t.Error("a stale handle finds something")
		}
	})
}

// TestResetOnTheWay: a RST behind data that the stack has yet to see is the stack's
// to judge.
func TestResetOnTheWay(t *testing.T) {
	c := newRig(t, nil).open(flow4).establish()
	c.in(flow4, c.first(100))
	for _, seq := range []uint32{irs + 1, irs + 101} {
		res, _ := c.in(flow4, seg{flags: rst, seq: seq})
		c.verdict(res, Pass, None)
		if res.Gone || c.t.State(c.h) != Established {
			t.Error("the record is gone before the stack decided")
		}
	}
	if !c.t.Release(c.h) {
		t.Error("Release")
	}
	c.empty()
}

// TestOvertakenWindow: the window of an ACK that a newer one has overtaken is not news,
// neither here nor to the stack.
func TestOvertakenWindow(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		for _, partial := range []bool{false, true} {
			c := newRig(t, nil).open(p).establish()
			c.out(p, seg{flags: ack, seq: stackISN + 1, ack: c.nxt, wnd: 900, data: 100})
			in := func(ackd uint32, wnd uint16) got {
				b := raw(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 1 + ackd, wnd: wnd, opts: tsOpt(clientTS+1, c.ts)})
				d := describe(c, b, partial, 3)
				c.verdict(c.t.Inbound(&d, c.now), Pass, None)
				if partial {
					return got{seg: seg{wnd: binary.BigEndian.Uint16(d.TCP[14:])}}
				}
				return decode(c, b) // which looks at the checksum
			}
			for _, step := range []struct {
				ackd      uint32
				wnd, want uint16
			}{{100, 300, 300}, {50, 7, 300}, {100, 301, 301}, {99, 0, 301}, {100, 0, 0}} {
				if g := in(step.ackd, step.wnd); g.wnd != step.want {
					t.Errorf("ACK of %d with window %d: the stack sees %d, want %d", step.ackd, step.wnd, g.wnd, step.want)
				}
			}
			q, _ := c.t.resolve(c.h)
			if q.cliWnd != 0 {
				t.Errorf("window %d", q.cliWnd)
			}
			q.unlock()
		}
	})
}
