package minisock

import (
	"testing"
	"time"
)

// families runs f over both.
func families(t *testing.T, f func(t *testing.T, p pair)) {
	t.Helper()
	t.Run("IPv4", func(t *testing.T) { f(t, flow4) })
	t.Run("IPv6", func(t *testing.T) { f(t, flow6) })
}

// TestSYNAck: every set of a SYN's options, mirrored as Linux does it.
func TestSYNAck(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		for set := range 16 {
			o := SYNOptions{MSS: 1300, WindowScale: -1, SACK: set&1 != 0, TS: set&2 != 0, TSVal: 77}
			if set&4 != 0 {
				o.WindowScale = 9
			}
			opts := o.append(nil)
			if set&8 != 0 {
				opts = opts[4:] // no MSS
			}
			r := newRig(t, nil)
			res, _ := r.in(p, seg{flags: syn, seq: irs, wnd: 1000, opts: opts})
			r.verdict(res, Dropped, None)
			g := r.reply()
			r.wants(g, p, syn|ack, g.seq, irs+1)
			want := SYNOptions{MSS: 1460, WindowScale: -1, SACK: o.SACK, TS: o.TS, TSVal: g.tsVal}
			if p == flow6 {
				want.MSS = 1440
			}
			if o.TS {
				want.TSEcr = 77
			}
			if set&4 != 0 {
				want.WindowScale = 7
			}
			if g.syn != want || g.wnd != 64000 || g.queue != 3 {
				t.Errorf("set %d: options %+v, want %+v; window %d, queue %d", set, g.syn, want, g.wnd, g.queue)
			}
			c := &conn{rig: r, p: p, h: res.Handle, isn: g.seq}
			s := c.first(0)
			s.opts = nil
			res, _ = r.in(p, s)
			r.verdict(res, Create, None)
			open, ok := r.t.Open(res.Handle)
			if set&8 != 0 {
				o.MSS = map[bool]uint16{true: 536, false: 1220}[p == flow4]
			}
			if !ok || open.SYN != (SYNOptions{MSS: o.MSS, WindowScale: o.WindowScale, SACK: o.SACK, TS: o.TS, TSVal: boolTo(o.TS, 77)}) {
				t.Errorf("set %d: %+v", set, open)
			}
			if open.Client != p.src || open.Destination != p.dst || open.ClientNext != 0xfffffff1 || open.OurNext != g.seq+1 || open.Queue != 3 {
				t.Errorf("set %d: %+v", set, open)
			}
		}
	})
}

func boolTo(b bool, v uint32) uint32 {
	if b {
		return v
	}
	return 0
}

// TestTinyMSS: a segment size below the floor is taken for the floor (CVE-2019-11479).
func TestTinyMSS(t *testing.T) {
	for _, mss := range []uint16{0, 1, 48, 535, 536, 537} {
		r := newRig(t, nil)
		o := SYNOptions{MSS: mss, WindowScale: -1}
		r.in(flow4, seg{flags: syn, seq: irs, opts: o.append(nil)})
		c := &conn{rig: r, isn: r.reply().seq}
		s := c.first(0)
		s.opts = nil
		res, _ := r.in(flow4, s)
		if open, _ := r.t.Open(res.Handle); open.SYN.MSS != max(mss, 536) {
			t.Errorf("MSS %d is taken for %d", mss, open.SYN.MSS)
		}
	}
}

// TestRetransmit: SYN-ACKs at 0, 1, 3 and 7 s, and nothing is left after 10.
func TestRetransmit(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		start := r.now
		c := r.open(p)
		var at []time.Duration
		for r.t.Stats().Records > 0 {
			next := r.t.Next(r.now)
			if next <= r.now || next == Never {
				t.Fatalf("Next is %v at %v", next, r.now)
			}
			r.tick(next - r.now - time.Millisecond)
			r.silent()
			r.tick(time.Millisecond)
			if len(r.sent) == 0 {
				break
			}
			g := r.reply()
			r.wants(g, p, syn|ack, c.isn, irs+1)
			if g.tsVal != c.ts+millis(r.now-start) {
				t.Errorf("TSval %d after %v, %d before", g.tsVal, r.now-start, c.ts)
			}
			at = append(at, r.now-start)
		}
		want := []time.Duration{time.Second, 3 * time.Second, 7 * time.Second}
		if len(at) != 3 || at[0] != want[0] || at[1] != want[1] || at[2] != want[2] || r.now-start != 10*time.Second {
			t.Errorf("repeated at %v, gone after %v", at, r.now-start)
		}
		if r.counted(HalfOpenExpired) != 1 || r.counted(SYNAckAgain) != 3 || r.t.Next(r.now) != Never {
			t.Error("counters")
		}
		r.empty()
	})
}

func TestRetries(t *testing.T) {
	for retries, want := range map[int]int{-1: 0, 1: 1, 2: 2, 3: 3, 6: 3} {
		r := newRig(t, func(o *Options) { o.SynAckRetries = retries })
		r.open(flow4)
		for range 10 {
			r.tick(time.Second)
		}
		if len(r.sent) != want {
			t.Errorf("%d retries: %d repeated", retries, len(r.sent))
		}
		r.empty()
	}
}

// TestSynReceived: each kind of segment to a flow in SYN-RCVD.
func TestSynReceived(t *testing.T) {
	type want struct {
		verdict Verdict
		cause   Cause
		flags   uint8 // of the answer; 0 is none
		seq     func(c *conn) uint32
		ack     uint32
		state   State
	}
	isn := func(d uint32) func(c *conn) uint32 { return func(c *conn) uint32 { return c.isn + d } }
	at := func(v uint32) func(c *conn) uint32 { return func(*conn) uint32 { return v } }
	for name, tc := range map[string]struct {
		seg func(c *conn) seg
		want
	}{
		"final ACK":         {func(c *conn) seg { return c.first(0) }, want{verdict: Create, state: Creating}},
		"first data":        {func(c *conn) seg { return c.first(100) }, want{verdict: Create, state: Creating}},
		"second data first": {func(c *conn) seg { s := c.first(100); s.seq += 100; return s }, want{verdict: Create, state: Creating}},
		"FIN with the ACK":  {func(c *conn) seg { s := c.first(0); s.flags |= fin; return s }, want{verdict: Create, state: Creating}},
		"no timestamp":      {func(c *conn) seg { s := c.first(0); s.opts = nil; return s }, want{verdict: Create, state: Creating}},
		"same SYN": {
			func(*conn) seg { return seg{flags: syn, seq: irs, opts: linuxSYN()} },
			want{cause: SYNDuplicate, flags: syn | ack, seq: isn(0), ack: irs + 1, state: SynReceived},
		},
		"other SYN": {
			func(*conn) seg { return seg{flags: syn, seq: irs + 9} },
			want{cause: SYNChallenged, flags: ack, seq: isn(1), ack: irs + 1, state: SynReceived},
		},
		"SYN-ACK": {
			func(c *conn) seg { return seg{flags: syn | ack, seq: irs, ack: c.isn + 1} },
			want{cause: SYNChallenged, flags: ack, seq: isn(1), ack: irs + 1, state: SynReceived},
		},
		"exact RST":         {func(*conn) seg { return seg{flags: rst, seq: irs + 1} }, want{cause: HalfOpenReset, state: Free}},
		"exact RST-ACK":     {func(*conn) seg { return seg{flags: rst | ack, seq: irs + 1} }, want{cause: HalfOpenReset, state: Free}},
		"RST in the window": {func(*conn) seg { return seg{flags: rst, seq: irs + 2} }, want{cause: StrayRST, state: SynReceived}},
		"old RST":           {func(*conn) seg { return seg{flags: rst, seq: irs} }, want{cause: StrayRST, state: SynReceived}},
		"ACK too low": {
			func(c *conn) seg { s := c.first(0); s.ack--; return s },
			want{cause: UnknownReset, flags: rst, seq: isn(0), state: SynReceived},
		},
		"ACK too high": {
			func(c *conn) seg { s := c.first(0); s.ack++; return s },
			want{cause: UnknownReset, flags: rst, seq: isn(2), state: SynReceived},
		},
		"before the window": {
			func(c *conn) seg { s := c.first(0); s.seq--; return s },
			want{cause: HandshakePAWS, flags: ack, seq: isn(1), ack: irs + 1, state: SynReceived},
		},
		"behind the window": {
			func(c *conn) seg { s := c.first(0); s.seq += 64000; return s },
			want{cause: HandshakePAWS, flags: ack, seq: isn(1), ack: irs + 1, state: SynReceived},
		},
		"old timestamp": {
			func(c *conn) seg { s := c.first(0); s.opts = tsOpt(clientTS-1, c.ts); return s },
			want{cause: HandshakePAWS, flags: ack, seq: isn(1), ack: irs + 1, state: SynReceived},
		},
		"null":      {func(*conn) seg { return seg{seq: irs + 1} }, want{cause: OddFlags, state: SynReceived}},
		"bare FIN":  {func(*conn) seg { return seg{flags: fin, seq: irs + 1} }, want{cause: OddFlags, state: SynReceived}},
		"other ACK": {func(*conn) seg { return seg{flags: ack, seq: irs + 1, ack: 5} }, want{cause: UnknownReset, flags: rst, seq: at(5), state: SynReceived}},
	} {
		families(t, func(t *testing.T, p pair) {
			r := newRig(t, nil)
			c := r.open(p)
			res, g := r.in(p, tc.seg(c))
			r.verdict(res, tc.verdict, tc.cause)
			if state := r.t.State(c.h); state != tc.state {
				t.Errorf("%s: state %v, want %v", name, state, tc.state)
			}
			if tc.flags == 0 {
				r.silent()
			} else {
				r.wants(r.reply(), p, tc.flags, tc.seq(c), tc.ack)
			}
			if res.Held != (tc.verdict == Create && (g.data > 0 || g.flags&fin != 0)) {
				t.Errorf("%s: held %v", name, res.Held)
			}
		})
	}
}

// TestDuplicateSYNs: each is counted, one in half a second is answered.
func TestDuplicateSYNs(t *testing.T) {
	r := newRig(t, nil)
	c := r.open(flow4)
	for range 10 {
		r.in(flow4, seg{flags: syn, seq: irs, opts: linuxSYN()})
	}
	r.wants(r.reply(), flow4, syn|ack, c.isn, irs+1)
	r.now += 500 * time.Millisecond
	r.in(flow4, seg{flags: syn, seq: irs, opts: linuxSYN()})
	r.wants(r.reply(), flow4, syn|ack, c.isn, irs+1)
	if r.counted(SYNDuplicate) != 11 || r.counted(SYNLimited) != 9 || r.t.Stats().HalfOpen != 1 {
		t.Errorf("%+v", r.t.Stats())
	}
}

// TestDialFirst: the SYN is answered when the owner says so.
func TestDialFirst(t *testing.T) {
	dialFirst := func(o *Options) { o.Admission = DialFirst }
	families(t, func(t *testing.T, p pair) {
		hello := seg{flags: syn, seq: irs, wnd: 65000, opts: linuxSYN()}
		t.Run("Answer", func(t *testing.T) {
			r := newRig(t, dialFirst)
			res, _ := r.in(p, hello)
			r.verdict(res, Dial, None)
			if !r.t.SetOwner(res.Handle, 42) {
				t.Error("no record")
			}
			for range 3 {
				again, _ := r.in(p, hello)
				r.verdict(again, Dropped, SYNDuplicate)
			}
			for why, s := range map[Cause]seg{
				StrayRST: {flags: rst, seq: irs + 1}, HandshakeBadACK: {flags: ack, seq: irs + 1, ack: 1}, UnknownSYNAck: {flags: syn | ack, seq: irs},
			} {
				res, _ := r.in(p, s)
				r.verdict(res, Dropped, why)
			}
			r.silent()
			if !r.t.Answer(res.Handle, r.now) || r.t.Answer(res.Handle, r.now) {
				t.Error("Answer")
			}
			c := &conn{rig: r, p: p, h: res.Handle}
			c.synAck = r.reply()
			c.isn, c.ts = c.synAck.seq, c.synAck.tsVal
			final, _ := r.in(p, c.first(0))
			r.verdict(final, Create, None)
			if final.Owner != 42 || final.Handle != res.Handle || r.t.Refuse(res.Handle) {
				t.Errorf("%+v", final)
			}
		})
		t.Run("another SYN", func(t *testing.T) {
			r := newRig(t, dialFirst)
			res, _ := r.in(p, hello)
			hello.seq = 5000
			r.in(p, hello)
			r.t.Answer(res.Handle, r.now)
			if g := r.reply(); g.ack != 5001 {
				t.Errorf("ack %d", g.ack)
			}
			hello.seq = irs
		})
		t.Run("Refuse", func(t *testing.T) {
			r := newRig(t, dialFirst)
			res, _ := r.in(p, hello)
			if !r.t.Refuse(res.Handle) || r.t.Refuse(res.Handle) {
				t.Error("Refuse")
			}
			r.wants(r.reply(), p, rst|ack, 0, irs+1)
			r.empty()
		})
		t.Run("Drop", func(t *testing.T) {
			r := newRig(t, dialFirst)
			res, _ := r.in(p, hello)
			if !r.t.Drop(res.Handle) || r.t.Drop(res.Handle) {
				t.Error("Drop")
			}
			r.silent()
			r.empty()
		})
		t.Run("forgotten", func(t *testing.T) {
			r := newRig(t, dialFirst)
			res, _ := r.in(p, hello)
			r.tick(30 * time.Second)
			r.silent()
			if len(r.gone) != 1 || r.gone[0] != res.Handle || r.why[0] != DialExpired {
				t.Errorf("gone %v %v", r.gone, r.why)
			}
			r.empty()
		})
	})
}

// TestDeferAccept: a client without data waits, but not for ever.
func TestDeferAccept(t *testing.T) {
	wait := func(o *Options) { o.DeferAccept = 3 * time.Second }
	families(t, func(t *testing.T, p pair) {
		t.Run("data", func(t *testing.T) {
			r := newRig(t, wait)
			c := r.open(p)
			res, _ := r.in(p, c.first(0))
			r.verdict(res, Dropped, Deferred)
			r.tick(2 * time.Second)
			r.silent()
			res, _ = r.in(p, c.first(10))
			r.verdict(res, Create, None)
			if !res.Held {
				t.Error("not held")
			}
		})
		t.Run("limit", func(t *testing.T) {
			r := newRig(t, wait)
			c := r.open(p)
			r.in(p, c.first(0))
			r.tick(3 * time.Second)
			r.wants(r.reply(), p, syn|ack, c.isn, irs+1)
			res, _ := r.in(p, c.first(0))
			r.verdict(res, Create, None)
		})
		t.Run("gone", func(t *testing.T) {
			r := newRig(t, wait)
			c := r.open(p)
			r.in(p, c.first(0))
			for range 20 {
				r.tick(time.Second)
			}
			r.empty()
		})
	})
}

// TestBacklog: past each bound the policy holds, and the bound itself.
func TestBacklog(t *testing.T) {
	hello := func(r *rig, src, dst byte) Result {
		p := flow4
		a := p.src.Addr().As4()
		a[3] = src
		p.src = addrPort(a, uint16(1000+r.counted(SYN)))
		b := p.dst.Addr().As4()
		b[3] = dst
		p.dst = addrPort(b, 443)
		res, _ := r.in(p, seg{flags: syn, seq: irs, opts: linuxSYN()})
		return res
	}
	for _, policy := range []struct {
		overflow Overflow
		flags    uint8
	}{{OverflowCookies, syn | ack}, {OverflowDrop, 0}, {OverflowReset, rst | ack}} {
		for why, spread := range map[Cause]func(i int) (src, dst byte){
			SourceShare:      func(i int) (byte, byte) { return 1, byte(i) },
			DestinationShare: func(i int) (byte, byte) { return byte(i), 1 },
			BacklogFull:      func(i int) (byte, byte) { return byte(i), byte(i) },
		} {
			r := newRig(t, func(o *Options) {
				o.Overflow = policy.overflow
				o.Backlog, o.PerSource, o.PerDestination = 12, 4, 6
			})
			limit := map[Cause]int{SourceShare: 4, DestinationShare: 6, BacklogFull: 12}[why]
			for i := range 40 {
				src, dst := spread(i)
				r.sent = nil
				r.now += 100 * time.Millisecond // RSTs are limited
				hello(r, src, dst)
				var answer uint8
				if len(r.sent) > 0 {
					answer = r.reply().flags
				}
				if i < limit && answer != syn|ack || i >= limit && answer != policy.flags {
					t.Errorf("%v: %d answered with %#x", why, i, answer)
				}
			}
			s := r.t.Stats()
			if s.HalfOpen != limit || s.Records != limit || int(s.Counters[why]) != 40-limit {
				t.Errorf("%v, policy %d: %d half-open, %d refused", why, policy.overflow, s.HalfOpen, s.Counters[why])
			}
			for range 11 {
				r.tick(time.Second)
			}
			r.empty()
		}
	}
}

// TestRefusing: while the gateway drains, new flows are reset.
func TestRefusing(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxRecords = 1 })
	c := r.open(flow4).establish()
	r.in(flow6, seg{flags: syn, seq: irs})
	r.wants(r.reply(), flow6, rst|ack, 0, irs+1)
	r.t.Release(c.h)
	r.t.SetRefusing(true)
	r.in(flow6, seg{flags: syn, seq: irs})
	r.wants(r.reply(), flow6, rst|ack, 0, irs+1)
	r.t.SetRefusing(false)
	r.in(flow6, seg{flags: syn, seq: irs})
	if g := r.reply(); g.flags != syn|ack || r.counted(SYNRefusing) != 1 || r.counted(TableFull) != 1 {
		t.Errorf("%+v", g)
	}
}

// TestOddFlags: of all sets of flags, what no TCP sends goes no further.
func TestOddFlags(t *testing.T) {
	allowed := map[uint8]bool{}
	for _, f := range []uint8{syn, syn | ack, rst, rst | ack, ack, fin | ack} {
		allowed[f] = true
		if f&rst == 0 && f != syn|ack {
			allowed[f|urg] = true
		}
	}
	for f := range 256 {
		r := newRig(t, nil)
		res, _ := r.in(flow4, seg{flags: uint8(f), seq: irs})
		if odd := res.Cause == OddFlags; odd == allowed[uint8(f)&decisive] {
			t.Errorf("flags %#x: odd %v", f, odd)
		}
	}
}

// TestUnknown: RSTs to segments of no flow, within limits.
func TestUnknown(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		r.in(p, seg{flags: ack, seq: 7, ack: 99, data: 5})
		r.wants(r.reply(), p, rst, 99, 0)
		for _, f := range []uint8{rst, rst | ack, syn | ack} {
			r.in(p, seg{flags: f, seq: 7, ack: 9})
			r.silent()
		}
		for range 1000 {
			r.in(p, seg{flags: ack, seq: 7, ack: 99})
		}
		if n := len(r.sent); n < 5 || n > 13 { // an eighth of a tenth of 1000
			t.Errorf("%d RSTs for one source", n)
		}
		r.sent = nil
		for i := range 3000 {
			q := p
			q.src = addrPort([4]byte{198, 19, byte(i >> 8), byte(i)}, 99)
			q.dst = flow4.dst
			r.in(q, seg{flags: fin | ack, seq: 7, ack: 99})
		}
		if n := len(r.sent); n < 80 || n > 101 {
			t.Errorf("%d RSTs at once", n)
		}
		r.empty()
	})
}

// TestNoSACK: what is not to be agreed on is neither offered nor taken, by a record or a
// cookie.
func TestNoSACK(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		for _, cookies := range []bool{false, true} {
			r := newRig(t, func(o *Options) {
				o.NoSACK = true
				o.Admission, o.AlwaysCookies = DialAfter, cookies
			})
			c := r.open(p)
			if c.synAck.syn.SACK {
				t.Errorf("cookies %v: offered", cookies)
			}
			c.establish()
			if q, _ := r.t.resolve(c.h); q.has(withSACK) {
				t.Errorf("cookies %v: taken", cookies)
			} else {
				q.unlock()
			}
		}
	})
}
