package minisock

import "testing"

// rstIn shows the client's RST, which may be put off.
func (c *conn) rstIn(s seg, later bool) Result {
	c.Helper()
	s.flags |= rst
	d := describe(c, raw(c.p, s), false, 3)
	d.Later = later
	return c.t.Inbound(&d, c.now)
}

// TestLater: a RST that ends a connection may be put off, and does so when it is shown
// again; others may not.
func TestLater(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		c.verdict(c.rstIn(seg{seq: c.nxt}, true), Later, None)
		if s := c.t.State(c.h); s != Established {
			t.Fatalf("put off, and the connection is in %v", s)
		}
		// A new SYN of the tuple is challenged meanwhile, as on any connection.
		res, _ := c.in(p, seg{flags: syn, seq: c.nxt + 1000, wnd: 65000, opts: linuxSYN()})
		c.verdict(res, Dropped, ChallengedSYN)
		c.wants(c.reply(), p, ack, c.isn+1, c.nxt)
		res = c.rstIn(seg{seq: c.nxt}, false)
		c.verdict(res, Pass, None)
		if !res.Gone || c.counted(ResetLater) != 1 || c.counted(ResetIn) != 1 {
			t.Errorf("gone %v; %d put off, %d ended", res.Gone, c.counted(ResetLater), c.counted(ResetIn))
		}
		c.empty()
	})
	c := newRig(t, nil).open(flow4).establish()
	c.verdict(c.rstIn(seg{seq: c.nxt + 5}, true), Dropped, ChallengedRST)
	c.reply()
	c.verdict(c.rstIn(seg{seq: c.nxt - 5}, true), Dropped, StrayRST)
	c.verdict(c.rstIn(seg{seq: c.nxt, data: 1}, true), Pass, None)
	c.verdict(c.rstIn(seg{seq: c.nxt}, true), Dropped, UnknownRST)
	half := newRig(t, nil).open(flow4)
	half.verdict(half.rstIn(seg{seq: irs + 1}, true), Dropped, HalfOpenReset)
}
