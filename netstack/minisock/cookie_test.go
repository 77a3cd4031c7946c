package minisock

import (
	"testing"
	"time"
)

func withCookies(o *Options) { o.AlwaysCookies = true }

// TestCookieOptions: whatever a SYN says is there again when the cookie comes back.
func TestCookieOptions(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		sizes := cookieMSS(p == flow4)
		for _, mss := range []uint16{0, 100, 536, 1219, 1220, 1299, 1300, 1400, 1419, 1420, 1439, 1440, 1459, 1460, 8939, 8940, 65495} {
			for ws := int8(-1); ws <= 14; ws++ {
				for set := range 4 {
					o := SYNOptions{MSS: mss, WindowScale: ws, SACK: set&1 != 0, TS: set&2 != 0, TSVal: clientTS}
					r := newRig(t, withCookies)
					r.now += time.Duration(mss) * time.Millisecond
					res, _ := r.in(p, seg{flags: syn, seq: irs, wnd: 500, opts: o.append(nil)})
					r.verdict(res, Dropped, CookieSent)
					g := r.reply()
					r.wants(g, p, syn|ack, g.seq, irs+1)
					if g.hasTS != o.TS || o.TS && (g.tsEcr != clientTS || (g.syn.WindowScale >= 0) != (ws >= 0) || g.syn.SACK != o.SACK) {
						t.Fatalf("%+v answered by %+v", o, g.syn)
					}
					if !o.TS && (g.syn.SACK || g.syn.WindowScale >= 0) {
						t.Fatalf("%+v promised by %+v", o, g.syn)
					}
					r.empty()
					s := seg{flags: ack, seq: irs + 1, ack: g.seq + 1, wnd: 70}
					if o.TS {
						s.opts = tsOpt(clientTS+5, g.tsVal)
					}
					res, _ = r.in(p, s)
					r.verdict(res, Create, None)
					open, _ := r.t.Open(res.Handle)
					want := SYNOptions{MSS: 536, WindowScale: -1, TS: o.TS}
					for _, m := range sizes {
						if m <= max(mss, 536) {
							want.MSS = m
						}
					}
					if p == flow6 {
						want.MSS = max(want.MSS, 1220)
					}
					if o.TS {
						want.WindowScale, want.SACK, want.TSVal = ws, o.SACK, clientTS+5
					}
					if open.SYN != want || open.ClientNext != irs+1 || open.OurNext != g.seq+1 {
						t.Fatalf("%+v became %+v, want %+v", o, open.SYN, want)
					}
				}
			}
		}
	})
}

// TestCookieTS: what a timestamp says never puts it into the future, nor far back.
func TestCookieTS(t *testing.T) {
	for ms := uint32(0xffffff00); ms != 0x200; ms++ {
		for ws := int8(-1); ws <= 14; ws++ {
			o := SYNOptions{WindowScale: ws, SACK: ms&1 != 0}
			ts := cookieTS(ms, &o)
			if back := ms - ts; back > tsMask {
				t.Fatalf("%#x for %#x", ts, ms)
			}
		}
	}
}

// TestCookieAge: valid for 64 to 128 s, whatever the moment it was made at.
func TestCookieAge(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		for made := time.Duration(0); made < 64*time.Second; made += 7 * time.Second {
			for age, want := range map[time.Duration]bool{
				0: true, 63 * time.Second: true, 64 * time.Second: true, 128 * time.Second: false, 129 * time.Second: false,
				192 * time.Second: false, 256 * time.Second: false, 4096 * time.Second: false,
			} {
				r := newRig(t, withCookies)
				r.now += made
				c := r.open(p)
				r.now += age
				res, _ := r.in(p, c.first(0))
				if got := res.Verdict == Create; got != want {
					t.Errorf("made at %v, %v old: accepted %v", made, age, got)
				}
			}
		}
	})
}

// TestCookieForged: no bit of the cookie, of the client's number or of the flow may
// change. A hash of 29 bits lets nothing of a few thousand through.
func TestCookieForged(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, withCookies)
		c := r.open(p)
		for bit := range 32 {
			s := c.first(0)
			s.ack = c.isn ^ 1<<bit + 1
			if res, _ := r.in(p, s); res.Verdict == Create {
				t.Errorf("bit %d of the cookie", bit)
			}
			s = c.first(0)
			s.seq = irs ^ 1<<bit + 1
			if res, _ := r.in(p, s); res.Verdict == Create {
				t.Errorf("bit %d of the number", bit)
			}
		}
		q := p
		q.dst, q.src = p.src, p.dst
		for i, other := range []pair{q, {p.src, q.src}} {
			if other == p {
				continue
			}
			if res, _ := r.in(other, c.first(0)); res.Verdict == Create {
				t.Errorf("flow %d", i)
			}
		}
		if n := r.counted(CookieRejected); n < 60 {
			t.Errorf("%d rejected", n)
		}
		other := newRig(t, withCookies) // other secrets
		other.open(p)
		if res, _ := other.in(p, c.first(0)); res.Verdict == Create {
			t.Error("another table's cookie")
		}
		if res, _ := r.in(p, c.first(0)); res.Verdict != Create {
			t.Error("the cookie itself")
		}
	})
}

// TestCookieUnasked: ACKs are not looked at for cookies where none was sent.
func TestCookieUnasked(t *testing.T) {
	r := newRig(t, nil)
	r.in(flow4, seg{flags: ack, seq: 1, ack: 1})
	if r.counted(CookieRejected) != 0 {
		t.Error("looked at")
	}
}

// TestCookieFlow: a connection by cookie lives as any other, with data first, too.
func TestCookieFlow(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, withCookies)
		c := r.open(p)
		res, _ := r.in(p, c.first(33))
		r.verdict(res, Create, None)
		if !res.Held {
			t.Error("data is not held")
		}
		c.h = res.Handle
		c.create()
		b := raw(p, c.first(33))
		d := describe(t, b, false, 0)
		r.verdict(r.t.Resume(&d, r.now), Pass, None)
		if ok, _ := r.t.Ready(c.h, r.now); !ok {
			t.Error("not ready")
		}
		res, g := c.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 34, wnd: 9, opts: tsOpt(stackTS, clientTS)})
		c.verdict(res, Pass, None)
		if g.seq != c.isn+1 || before(g.tsVal, c.ts) {
			t.Errorf("%+v after a SYN-ACK at %d", g, c.ts)
		}
	})
}

// TestCookieOverflow: cookies begin where records end, in both modes of admission.
func TestCookieOverflow(t *testing.T) {
	for _, mode := range []Admission{DialAfter, DialFirst} {
		r := newRig(t, func(o *Options) { o.Backlog = 1; o.Admission = mode })
		r.open(flow6)
		res, _ := r.in(flow4, seg{flags: syn, seq: irs, wnd: 65000, opts: linuxSYN()})
		r.verdict(res, Dropped, CookieSent)
		g := r.reply()
		c := &conn{rig: r, p: flow4, isn: g.seq, ts: g.tsVal}
		res, _ = r.in(flow4, c.first(0))
		r.verdict(res, Create, None)
		if open, ok := r.t.Open(res.Handle); !ok || open.Owner != 0 || r.counted(CookieAccepted) != 1 || r.counted(BacklogFull) != 1 {
			t.Errorf("%+v", open)
		}
	}
}

// TestCookieDefer: with a place among the half-open a client waits there for its
// data, without one the cookie is good for it.
func TestCookieDefer(t *testing.T) {
	for _, backlog := range []int{1, 100} {
		r := newRig(t, func(o *Options) { o.AlwaysCookies = true; o.DeferAccept = 5 * time.Second; o.Backlog = backlog })
		if backlog == 1 {
			d := r.open(flow6)
			r.in(flow6, d.first(0))
		}
		c := r.open(flow4)
		res, _ := r.in(flow4, c.first(0))
		r.verdict(res, Dropped, Deferred)
		if n := r.t.Stats().Records; n != 1 {
			t.Errorf("%d records", n)
		}
		res, _ = r.in(flow4, c.first(5))
		r.verdict(res, Create, None)
	}
}

// TestSip: SipHash-2-4 of the bytes 00 01 02 ... 2f under the key 00 .. 0f, and the
// reference itself by the vectors of the paper's code.
func TestSip(t *testing.T) {
	word := func(from int) (v uint64) {
		for i := range 8 {
			v |= uint64(from+i) << (8 * i)
		}
		return v
	}
	s := secret{word(0), word(8)}
	for n, want := range map[int]uint64{0: 0x726fdb47dd0e0e31, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5} {
		if got := sipReference(s, n); got != want {
			t.Errorf("reference of %d bytes: %#x, want %#x", n, got, want)
		}
	}
	k := key{aHi: word(0), aLo: word(8), bHi: word(16), bLo: word(24), ports: uint32(word(32) >> 32)}
	if got, want := s.sip(&k, word(32)&0xffffffff, word(40)), sipReference(s, 48); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// sipReference is SipHash-2-4 of n bytes 00 01 02 ..., written out from the paper.
func sipReference(key secret, n int) uint64 {
	v0, v1, v2, v3 := key[0]^0x736f6d6570736575, key[1]^0x646f72616e646f6d, key[0]^0x6c7967656e657261, key[1]^0x7465646279746573
	rotate := func(x uint64, b int) uint64 { return x<<b | x>>(64-b) }
	round := func() {
		v0 += v1
		v2 += v3
		v1, v3 = rotate(v1, 13), rotate(v3, 16)
		v1 ^= v0
		v3 ^= v2
		v0 = rotate(v0, 32)
		v2 += v1
		v0 += v3
		v1, v3 = rotate(v1, 17), rotate(v3, 21)
		v1 ^= v2
		v3 ^= v0
		v2 = rotate(v2, 32)
	}
	m := make([]byte, n/8*8+8)
	for i := range n {
		m[i] = byte(i)
	}
	m[len(m)-1] = byte(n)
	for ; len(m) > 0; m = m[8:] {
		var w uint64
		for i := range 8 {
			w |= uint64(m[i]) << (8 * i)
		}
		v3 ^= w
		round()
		round()
		v0 ^= w
	}
	v2 ^= 0xff
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}
