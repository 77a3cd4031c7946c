package minisock

import (
	"testing"
	"time"
)

func delaying(o *Options) { o.DelayACKs = true }

// request lets the client of an established connection send n bytes.
func (c *conn) request(n int) {
	c.Helper()
	res, _ := c.in(c.p, seg{flags: ack, seq: c.nxt, ack: c.isn + 1, wnd: 500, opts: tsOpt(clientTS+1, c.ts), data: n})
	c.verdict(res, Pass, None)
	c.nxt += uint32(n)
}

// acks lets the stack acknowledge all of that.
func (c *conn) acks(more seg) Result {
	c.Helper()
	more.flags |= ack
	if more.seq == 0 {
		more.seq = stackISN + 1
	}
	more.ack, more.wnd = c.nxt, 900
	if more.opts == nil {
		more.opts = tsOpt(stackTS+9, clientTS+1)
	}
	res, _ := c.out(c.p, more)
	return res
}

// TestDelayedACK: the stack's ACK of a request waits for the answer and goes with it,
// or by itself when none has come.
func TestDelayedACK(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, delaying).open(p).establish()
		c.request(100)
		res := c.acks(seg{})
		c.verdict(res, Swallowed, DelayedACK)
		c.verdict(c.acks(seg{data: 10}), Pass, None)
		c.t.Acknowledge(res.Handle, c.nxt)
		c.silent() // it went with the answer

		c.request(100)
		first := c.nxt - 100
		res = c.acks(seg{seq: stackISN + 11})
		c.verdict(res, Swallowed, DelayedACK)
		c.t.Acknowledge(res.Handle, first)
		c.silent() // that was the time of another
		c.t.Acknowledge(res.Handle, c.nxt)
		g := c.reply()
		c.wants(g, p, ack, c.isn+11, c.nxt)
		if g.wnd != 900 || !g.hasTS || g.tsVal != c.ts+9 || g.tsEcr != clientTS+1 || g.queue != 3 {
			t.Errorf("sent %+v", g)
		}
		c.t.Acknowledge(res.Handle, c.nxt)
		c.silent()
		if c.counted(DelayedACK) != 2 || c.counted(DelayInVain) != 1 {
			t.Errorf("counted %d and %d", c.counted(DelayedACK), c.counted(DelayInVain))
		}
	})
}

// TestDelayInVain: a flow whose answers come late is acknowledged at once from then
// on, but for a try now and again.
func TestDelayInVain(t *testing.T) {
	c := newRig(t, delaying).open(flow4).establish()
	delayed := 0
	for n := range uint32(1000) {
		c.request(100)
		if res := c.acks(seg{seq: stackISN + 1 + n}); res.Cause == DelayedACK {
			delayed++
			c.t.Acknowledge(res.Handle, c.nxt)
			c.reply()
		}
		c.verdict(c.acks(seg{seq: stackISN + 1 + n, data: 1}), Pass, None)
	}
	if want := 1000 / promptFor; delayed < want-1 || delayed > want+2 {
		t.Errorf("%d of 1000 delayed, want %d or so", delayed, want)
	}
}

// TestNotDelayed: what says more than that little data came goes out at once.
func TestNotDelayed(t *testing.T) {
	sack := append([]byte{1, 1, 5, 10}, make([]byte, 8)...)
	for name, what := range map[string]struct {
		request int
		answer  seg
	}{
		"more than a segment": {request: delayedMost + 1},
		"nothing new":         {},
		"SACK":                {request: 1, answer: seg{opts: sack}},
		"SACK and timestamps": {request: 1, answer: seg{opts: append(tsOpt(stackTS+9, clientTS+1), sack...)}},
		"data":                {request: 1, answer: seg{data: 1}},
		"FIN":                 {request: 1, answer: seg{flags: fin}},
		"RST":                 {request: 1, answer: seg{flags: rst}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newRig(t, delaying).open(flow4).establish()
			c.request(what.request)
			c.verdict(c.acks(what.answer), Pass, None)
		})
	}
	t.Run("the second", func(t *testing.T) {
		c := newRig(t, delaying).open(flow4).establish()
		c.request(1)
		c.verdict(c.acks(seg{}), Swallowed, DelayedACK)
		c.request(1)
		c.verdict(c.acks(seg{}), Pass, None)
		c.request(1)
		c.verdict(c.acks(seg{}), Swallowed, DelayedACK)
	})
	t.Run("behind our FIN", func(t *testing.T) {
		c := newRig(t, delaying).open(flow4).establish()
		c.verdict(c.acks(seg{flags: fin}), Pass, None)
		c.request(1)
		c.verdict(c.acks(seg{seq: stackISN + 2}), Pass, None)
	})
	t.Run("without the option", func(t *testing.T) {
		c := newRig(t, nil).open(flow4).establish()
		c.request(1)
		c.verdict(c.acks(seg{}), Pass, None)
	})
}

// TestDelayAtTheEnd: the ACK of the client's FIN waits for ours.
func TestDelayAtTheEnd(t *testing.T) {
	c := newRig(t, delaying).open(flow4).establish()
	res, _ := c.in(flow4, seg{flags: fin | ack, seq: c.nxt, ack: c.isn + 1, wnd: 500, opts: tsOpt(clientTS+1, c.ts)})
	c.verdict(res, Pass, None)
	c.nxt++
	res = c.acks(seg{})
	c.verdict(res, Swallowed, DelayedACK)
	if s := c.t.State(res.Handle); s != CloseWait {
		t.Errorf("state %v", s)
	}
	c.verdict(c.acks(seg{flags: fin}), Pass, None)
	c.t.Acknowledge(res.Handle, c.nxt)
	c.silent()
	c.in(flow4, seg{flags: ack, seq: c.nxt, ack: c.isn + 2, wnd: 500, opts: tsOpt(clientTS+1, c.ts)})
	c.t.Acknowledge(res.Handle, c.nxt) // of a record on its way out
	c.silent()
	c.tick(2 * time.Second)
	c.t.Acknowledge(res.Handle, c.nxt) // and of none
	c.empty()
}
