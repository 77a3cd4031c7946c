package minisock

import (
	"testing"
	"time"
)

// life is a connection that opens, says nothing, and is closed by us first.
func life(r *rig, p pair) *conn {
	r.Helper()
	c := r.open(p).establish()
	c.closeActive()
	return c
}

func (c *conn) fromStack(flags uint8, seq, ackd uint32) (Result, got) {
	c.Helper()
	return c.out(c.p, seg{flags: flags, seq: stackISN + 1 + seq, ack: irs + 1 + ackd, wnd: 600, opts: tsOpt(stackTS+1, clientTS)})
}

func (c *conn) fromClient(flags uint8, seq, ackd uint32) (Result, got) {
	c.Helper()
	return c.in(c.p, seg{flags: flags, seq: irs + 1 + seq, ack: c.isn + 1 + ackd, wnd: 500, opts: tsOpt(clientTS+2, c.ts)})
}

func (c *conn) state(want State) {
	c.Helper()
	if s := c.t.State(c.h); s != want {
		c.Fatalf("state %v, want %v", s, want)
	}
	if n := c.t.Stats().States[want]; want != Free && n != 1 {
		c.Fatalf("%d in %v", n, want)
	}
}

func (c *conn) goes(res Result, gone bool) {
	c.Helper()
	if res.Verdict != Pass || res.Gone != gone {
		c.Fatalf("%+v, want gone %v", res, gone)
	}
}

func (c *conn) closeActive() {
	c.Helper()
	res, _ := c.fromStack(fin|ack, 0, 0)
	c.goes(res, false)
	c.state(FinWait1)
	res, _ = c.fromClient(ack, 0, 1)
	c.goes(res, false)
	c.state(FinWait2)
	res, _ = c.fromClient(fin|ack, 0, 1)
	c.goes(res, false)
	c.state(FinWait2)
	res, _ = c.fromStack(ack, 1, 1)
	c.goes(res, true)
	c.state(TimeWait)
}

// TestClose: each order in which two FINs and their ACKs can pass.
func TestClose(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		t.Run("ours first", func(t *testing.T) {
			c := life(newRig(t, nil), p)
			res, _ := c.fromStack(rst, 1, 1) // the endpoint is aborted
			c.verdict(res, Swallowed, Late)
			c.tick(time.Minute - time.Millisecond)
			c.state(TimeWait)
			c.tick(time.Millisecond)
			c.empty()
		})
		t.Run("theirs first", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			res, _ := c.fromClient(fin|ack, 0, 0)
			c.goes(res, false)
			c.state(CloseWait)
			res, _ = c.fromStack(ack, 0, 1)
			c.goes(res, false)
			res, _ = c.fromStack(fin|ack, 0, 1)
			c.goes(res, false)
			c.state(LastAck)
			res, _ = c.fromClient(ack, 1, 1)
			c.goes(res, true)
			c.state(Linger)
			c.tick(time.Second)
			c.empty()
		})
		t.Run("crossing", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			res, _ := c.fromStack(fin|ack, 0, 0)
			c.goes(res, false)
			res, _ = c.fromClient(fin|ack, 0, 0)
			c.goes(res, false)
			c.state(Closing)
			res, _ = c.fromStack(ack, 1, 1)
			c.goes(res, false)
			c.state(Closing)
			res, _ = c.fromClient(ack, 1, 1)
			c.goes(res, true)
			c.state(TimeWait)
		})
		t.Run("crossing, seen late", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			res, _ := c.fromClient(fin|ack, 0, 0)
			c.goes(res, false)
			res, _ = c.fromStack(fin|ack, 0, 0) // made before theirs was read
			c.goes(res, false)
			c.state(Closing)
		})
		t.Run("FIN with the ACK of ours", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			c.fromStack(fin|ack, 0, 0)
			res, _ := c.fromClient(fin|ack, 0, 1)
			c.goes(res, false)
			c.state(FinWait2)
			res, _ = c.fromStack(ack, 1, 1)
			c.goes(res, true)
			c.state(TimeWait)
		})
	})
}

// TestTimeWait: each kind of segment to a connection that is over.
func TestTimeWait(t *testing.T) {
	type want struct {
		cause Cause
		flags uint8
		state State // of the flow afterwards
	}
	for name, tc := range map[string]struct {
		seg func(c *conn) seg
		want
	}{
		"FIN again": {
			func(c *conn) seg {
				return seg{flags: fin | ack, seq: irs + 1, ack: c.isn + 2, opts: tsOpt(clientTS+2, c.ts)}
			}, want{TimeWaitStray, ack, TimeWait},
		},
		"data":               {func(c *conn) seg { return seg{flags: ack, seq: irs + 2, ack: c.isn + 2, data: 5} }, want{TimeWaitStray, ack, TimeWait}},
		"the last ACK again": {func(c *conn) seg { return seg{flags: ack, seq: irs + 2, ack: c.isn + 2} }, want{TimeWaitQuiet, 0, TimeWait}},
		"an old ACK":         {func(c *conn) seg { return seg{flags: ack, seq: irs, ack: c.isn + 2} }, want{TimeWaitStray, ack, TimeWait}},
		"exact RST":          {func(*conn) seg { return seg{flags: rst, seq: irs + 2} }, want{TimeWaitReset, 0, TimeWait}},
		"any RST":            {func(*conn) seg { return seg{flags: rst, seq: 7} }, want{TimeWaitReset, 0, TimeWait}},
		"SYN-ACK":            {func(c *conn) seg { return seg{flags: syn | ack, seq: irs + 9, ack: c.isn} }, want{TimeWaitStray, ack, TimeWait}},
		"older SYN":          {func(*conn) seg { return seg{flags: syn, seq: irs - 5} }, want{TimeWaitStray, ack, TimeWait}},
		"the SYN again":      {func(*conn) seg { return seg{flags: syn, seq: irs} }, want{TimeWaitStray, ack, TimeWait}},
		"newer SYN":          {func(*conn) seg { return seg{flags: syn, seq: irs + 1000} }, want{None, syn | ack, SynReceived}},
		"older SYN, newer timestamp": {
			func(*conn) seg { return seg{flags: syn, seq: irs - 5, opts: tsOpt(clientTS+3, 0)} }, want{None, syn | ack, SynReceived},
		},
		"newer SYN, same timestamp": {
			func(*conn) seg { return seg{flags: syn, seq: irs + 5, opts: tsOpt(clientTS+2, 0)} }, want{None, syn | ack, SynReceived},
		},
		"newer SYN, older timestamp": {
			func(*conn) seg { return seg{flags: syn, seq: irs + 1000, opts: tsOpt(clientTS+1, 0)} }, want{TimeWaitStray, ack, TimeWait},
		},
	} {
		families(t, func(t *testing.T, p pair) {
			c := life(newRig(t, nil), p)
			c.now += 30 * time.Second
			res, _ := c.in(p, tc.seg(c))
			c.verdict(res, Dropped, tc.cause)
			if n := c.t.Stats().States[tc.state]; n != 1 || c.t.Stats().Records != 1 {
				t.Errorf("%s: %+v", name, c.t.Stats().States)
			}
			switch tc.flags {
			case 0:
				c.silent()
			case ack:
				c.wants(c.reply(), p, ack, c.isn+2, irs+2)
				c.in(p, tc.seg(c))
				c.silent()
			default:
				g := c.reply()
				if g.flags != syn|ack || g.seq != c.isn+2+1<<16+1 || before(g.tsVal, c.ts) && g.hasTS {
					t.Errorf("%s: %+v", name, g)
				}
				if c.t.State(c.h) != Free {
					t.Errorf("%s: the old handle still leads somewhere", name)
				}
			}
			for range 15 {
				c.tick(10 * time.Second)
			}
			c.empty()
		})
	}
}

// TestReuse: one tuple, over and over, opens at once each time.
func TestReuse(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		oldISN, oldTS := irs, clientTS
		defer func() { irs, clientTS = oldISN, oldTS }()
		for range 200 {
			life(r, p)
			irs += 1 << 20
			clientTS += 10
			r.now += 10 * time.Millisecond
		}
		if n := r.counted(TimeWaitReused); n != 199 {
			t.Errorf("%d of 199 reuses", n)
		}
		r.tick(time.Minute)
		r.empty()
	})
}

// TestNoReuse: where tuples are not to be used again, a newer SYN waits as well.
func TestNoReuse(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, func(o *Options) { o.NoTimeWaitReuse = true })
		life(r, p)
		o := SYNOptions{MSS: 1400, WindowScale: 8, SACK: true, TS: true, TSVal: clientTS + 1000}
		res, _ := r.in(p, seg{flags: syn, seq: irs + 1<<20, wnd: 65000, opts: o.append(nil)})
		r.verdict(res, Dropped, TimeWaitStray)
		if g := r.reply(); g.flags != ack {
			t.Errorf("answered %+v", g)
		}
		r.tick(time.Minute)
		r.empty()
		r.open(p)
	})
}

// TestLingerReuse: who closed first may come back at once, with any number.
func TestLingerReuse(t *testing.T) {
	c := newRig(t, nil).open(flow4).establish()
	c.fromClient(fin|ack, 0, 0)
	c.fromStack(fin|ack, 0, 1)
	c.fromClient(ack, 1, 1)
	c.state(Linger)
	res, _ := c.fromClient(fin|ack, 0, 1) // late
	c.verdict(res, Dropped, TimeWaitStray)
	c.reply()
	c.in(flow4, seg{flags: syn, seq: irs - 1<<20})
	if g := c.reply(); g.flags != syn|ack {
		t.Errorf("%+v", g)
	}
}

// TestTimeWaitOfSYNs: who tries to connect with numbers that TIME_WAIT does not take
// gets through when it ends, and does not prolong it by trying.
func TestTimeWaitOfSYNs(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := life(newRig(t, nil), p)
		for range 5 {
			c.tick(11 * time.Second)
			res, _ := c.in(p, seg{flags: syn, seq: irs - 5})
			c.verdict(res, Dropped, TimeWaitStray)
		}
		c.tick(6 * time.Second)
		c.empty()
	})
}

// TestTimeWaitFull: past the bound, connections end without a record.
func TestTimeWaitFull(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxTimeWait = 2 })
	for i := range 3 {
		p := flow4
		p.src = addrPort([4]byte{198, 18, 0, 9}, uint16(1000+i))
		c := r.open(p).establish()
		c.fromStack(fin|ack, 0, 0)
		c.fromClient(fin|ack, 0, 1)
		res, _ := c.fromStack(ack, 1, 1)
		c.goes(res, true)
	}
	if s := r.t.Stats(); s.States[TimeWait] != 2 || s.Counters[TimeWaitFull] != 1 || s.Records != 2 {
		t.Errorf("%+v", s)
	}
	r.tick(time.Minute)
	r.empty()
}

// TestOrphan: the record closes what its endpoint left.
func TestOrphan(t *testing.T) {
	finWait2 := func(t *testing.T, p pair) *conn {
		t.Helper()
		c := newRig(t, nil).open(p).establish()
		if c.t.Orphan(c.h, c.now) {
			t.Fatal("an orphan before its FIN")
		}
		c.fromStack(fin|ack, 0, 0)
		c.fromClient(ack, 0, 1)
		if !c.t.Orphan(c.h, c.now) || c.t.Orphan(c.h, c.now) {
			t.Fatal("Orphan")
		}
		res, _ := c.fromStack(rst|ack, 1, 0) // the endpoint is aborted
		c.verdict(res, Swallowed, Late)
		c.state(FinWait2)
		if c.t.Stats().Orphans != 1 {
			t.Fatal("not counted")
		}
		return c
	}
	families(t, func(t *testing.T, p pair) {
		t.Run("FIN_WAIT_2", func(t *testing.T) {
			c := finWait2(t, p)
			c.fromClient(ack, 0, 1)
			c.silent()
			res, _ := c.fromClient(fin|ack, 0, 1)
			c.verdict(res, Dropped, None)
			c.wants(c.reply(), p, ack, c.isn+2, irs+2)
			c.state(TimeWait)
			c.tick(time.Minute)
			c.empty()
		})
		t.Run("FIN_WAIT_2 for too long", func(t *testing.T) {
			c := finWait2(t, p)
			c.tick(59 * time.Second)
			c.state(FinWait2)
			c.tick(time.Second)
			c.silent()
			c.empty()
		})
		t.Run("data that was acknowledged", func(t *testing.T) { // by an ACK that was lost
			c := newRig(t, nil).open(p).establish()
			old := func(n int) seg {
				return seg{flags: ack, seq: irs + 1, ack: c.isn + 2, wnd: 5, opts: tsOpt(clientTS+3, c.ts), data: n}
			}
			c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 1, wnd: 5, opts: tsOpt(clientTS+2, c.ts), data: 100})
			c.fromStack(fin|ack, 0, 100)
			c.in(p, seg{flags: ack, seq: irs + 101, ack: c.isn + 2, wnd: 5, opts: tsOpt(clientTS+2, c.ts)})
			if !c.t.Orphan(c.h, c.now) {
				t.Fatal("Orphan")
			}
			for _, n := range []int{100, 60} {
				c.in(p, old(n))
				c.wants(c.reply(), p, ack, c.isn+2, irs+101)
				c.in(p, old(n))
				c.silent() // so soon
				c.tick(time.Second)
			}
			c.state(FinWait2)
		})
		t.Run("data for nobody", func(t *testing.T) {
			c := finWait2(t, p)
			res, _ := c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 2, wnd: 5, data: 7})
			c.verdict(res, Dropped, OrphanData)
			c.wants(c.reply(), p, rst, c.isn+2, 0)
			c.empty()
		})
		t.Run("FIN behind lost data", func(t *testing.T) {
			c := finWait2(t, p)
			res, _ := c.in(p, seg{flags: fin | ack, seq: irs + 6, ack: c.isn + 2, wnd: 5})
			c.verdict(res, Dropped, OrphanData)
			c.wants(c.reply(), p, rst, c.isn+2, 0)
		})
		t.Run("FIN of the past", func(t *testing.T) {
			c := finWait2(t, p)
			c.in(p, seg{flags: fin | ack, seq: irs, ack: c.isn + 2, wnd: 5})
			c.state(FinWait2)
		})
		t.Run("RST", func(t *testing.T) {
			c := finWait2(t, p)
			res, _ := c.in(p, seg{flags: rst, seq: irs + 2})
			c.verdict(res, Dropped, ChallengedRST)
			c.reply()
			res, _ = c.in(p, seg{flags: rst, seq: irs})
			c.verdict(res, Dropped, StrayRST)
			res, _ = c.in(p, seg{flags: rst, seq: irs + 1})
			c.verdict(res, Dropped, ResetIn)
			c.empty()
		})
		t.Run("SYN", func(t *testing.T) {
			c := finWait2(t, p)
			res, _ := c.in(p, seg{flags: syn, seq: irs + 2000})
			c.verdict(res, Dropped, ChallengedSYN)
			c.wants(c.reply(), p, ack, c.isn+2, irs+1)
		})
		t.Run("LAST_ACK", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			c.fromClient(fin|ack, 0, 0)
			c.fromStack(fin|ack, 0, 1)
			c.state(LastAck)
			if !c.t.Orphan(c.h, c.now) {
				t.Fatal("Orphan")
			}
			c.tick(time.Second)
			c.wants(c.reply(), p, fin|ack, c.isn+1, irs+2)
			c.now += 500 * time.Millisecond
			c.fromClient(fin|ack, 0, 0) // theirs once more: our ACK was lost
			c.wants(c.reply(), p, ack, c.isn+2, irs+2)
			c.fromClient(ack, 1, 1)
			c.state(Linger)
			c.tick(time.Second)
			c.empty()
		})
		t.Run("LAST_ACK given up", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			c.fromClient(fin|ack, 0, 0)
			c.fromStack(fin|ack, 0, 1)
			c.t.Orphan(c.h, c.now)
			start := c.now
			for c.t.Stats().Records > 0 {
				c.tick(time.Second)
			}
			if len(c.sent) != 5 || c.now-start != 63*time.Second {
				t.Errorf("%d FINs, gone after %v", len(c.sent), c.now-start)
			}
			c.empty()
		})
		t.Run("CLOSING", func(t *testing.T) {
			c := newRig(t, nil).open(p).establish()
			c.fromStack(fin|ack, 0, 0)
			if !c.t.Orphan(c.h, c.now) {
				t.Fatal("Orphan")
			}
			c.state(FinWait1)
			c.fromClient(fin|ack, 0, 0)
			c.wants(c.reply(), p, ack, c.isn+2, irs+2)
			c.state(Closing)
			c.tick(time.Second)
			c.wants(c.reply(), p, fin|ack, c.isn+1, irs+2)
			c.fromClient(ack, 1, 1)
			c.state(TimeWait)
		})
		t.Run("too many", func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.MaxOrphans = 1 })
			for i, q := range []pair{p, {p.src, flow4.src}} {
				if i == 1 && p == flow6 {
					break
				}
				c := r.open(q).establish()
				c.fromStack(fin|ack, 0, 0)
				if !r.t.Orphan(c.h, r.now) {
					t.Fatal("Orphan")
				}
				if i == 1 {
					r.wants(r.reply(), q, rst|ack, c.isn+2, irs+1)
				}
			}
		})
	})
}
