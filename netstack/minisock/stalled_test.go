package minisock

import (
	"slices"
	"testing"
	"time"
)

// mtus are those that the stack was told.
func (c *conn) mtus() (all []uint16) {
	c.Helper()
	for _, s := range c.stalled {
		if s.pair != c.p {
			c.Errorf("told %v", s.pair)
		}
		all = append(all, s.mtu)
	}
	c.stalled = nil
	return all
}

// TestResends: what of the stack's segments is there for the second time.
func TestResends(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		for n, step := range []struct {
			flags uint8
			at    uint32
			data  int
			again bool
		}{
			{ack, 0, 100, false},
			{ack, 0, 100, true},
			{ack, 50, 10, true},
			{ack, 50, 100, true}, // in part
			{ack, 0, 0, false},   // an ACK
			{ack, 150, 100, false},
			{fin | ack, 250, 0, false},
			{fin | ack, 250, 0, true},
			{fin | ack, 240, 10, true},
		} {
			res, _ := c.out(p, seg{flags: step.flags, seq: stackISN + 1 + step.at, ack: c.nxt, wnd: 900, data: step.data})
			c.verdict(res, Pass, None)
			if res.Again != step.again {
				t.Errorf("step %d: again %v", n, res.Again)
			}
		}
		c.fromClient(ack, 0, 200)
		res, _ := c.fromStack(ack, 100, 0)
		if res.Again {
			t.Error("an ACK is data")
		}
		for at, again := range map[uint32]bool{100: false, 199: true} { // acknowledged all, and but for the last
			res, _ := c.out(p, seg{flags: ack, seq: stackISN + at, ack: c.nxt, wnd: 900, data: 101})
			if res.Again != again {
				t.Errorf("at %d: again %v", at, res.Again)
			}
		}
	})
}

// TestStalled: a stack that has stopped is told of ever smaller packets until it sends;
// what only a FIN is missing to is sent from here.
func TestStalled(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		again := func() {
			res, _ := c.out(p, seg{flags: ack, seq: stackISN + 1, ack: c.nxt, wnd: 900, data: 100})
			c.verdict(res, Pass, None)
		}
		again()
		end := c.isn + 101
		c.onStalled = func() {
			if len(c.stalled) == 3 {
				again()
			}
		}
		nudged := func(what string, end uint32, unacked bool, want ...uint16) {
			t.Helper()
			if got := c.t.Stalled(c.h, end); got != unacked {
				t.Errorf("%s: unacknowledged: %v", what, got)
			}
			if got := c.mtus(); !slices.Equal(got, want) {
				t.Errorf("%s: told %v, want %v", what, got, want)
			}
		}
		// The client's MSS is 1400, 40 of it for options.
		nudged("it sends at the third", end, true, 1419, 739, 399)
		nudged("and once more", end, true, 398, 229, 144)
		c.onStalled = nil
		nudged("it does not", end, true, 143, 101, 80, 70, 68, 68, 68, 68, 68, 68, 68, 68, 68, 68)

		res, _ := c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 1, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		nudged("a closed window", end, true)

		c.fromStack(fin|ack, 100, 0)
		end++
		res, _ = c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 100, wnd: 500, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		c.onStalled = func() { c.fromStack(fin|ack, 100, 0) }
		nudged("a byte is missing before the FIN", end, true, 68)
		res, _ = c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 101, wnd: 500, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		nudged("what is acknowledged", end-1, false)
		c.silent()
		nudged("the FIN", end, true)
		c.wants(c.reply(), p, fin|ack, end-1, irs+1)
		if c.counted(Nudged) != 21 || c.counted(FinAgain) != 1 {
			t.Errorf("counted %d and %d", c.counted(Nudged), c.counted(FinAgain))
		}

		c.fromClient(rst, 0, 0)
		nudged("what is gone", end, false)
		c.empty()
	})
}

// TestStalledUnseen: a stack that stops without having sent anything again is found by
// the walk, before the connection is given up.
func TestStalledUnseen(t *testing.T) {
	c := newRig(t, func(o *Options) { o.Unacknowledged = 2 * time.Minute }).open(flow4).establish()
	res, _ := c.out(flow4, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 601, opts: tsOpt(stackTS+4, clientTS+1), data: 50})
	c.goes(res, false)
	c.onStalled = func() {
		c.out(flow4, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 601, opts: tsOpt(stackTS+4, clientTS+1), data: 50})
	}
	c.pass(9 * time.Second)
	if got := c.mtus(); len(got) != 0 {
		t.Errorf("told %v too soon", got)
	}
	c.pass(40 * time.Second)
	if got := c.mtus(); len(got) == 0 || got[0] != 1419 || len(got) > 4 {
		t.Errorf("told %v", got)
	}
	res, _ = c.in(flow4, seg{flags: ack, seq: irs + 1, ack: c.isn + 51, wnd: 500, opts: tsOpt(clientTS+9, c.ts)})
	c.goes(res, false)
	c.pass(3 * time.Minute)
	if got := c.mtus(); len(got) != 0 || len(c.ended) != 0 {
		t.Errorf("told %v where nothing is missing; ended %v", got, c.ended)
	}
}

// TestStalledPlain: room for options is left as there are options.
func TestStalledPlain(t *testing.T) {
	for _, tc := range []struct {
		is   flags
		want uint16
	}{{withTS | withSACK, 739}, {withSACK, 20 + 36 + 681}, {withTS, 20 + 12 + 693}, {0, 719}} {
		c := newRig(t, nil).open(flow4).establish()
		c.out(flow4, seg{flags: ack, seq: stackISN + 1, ack: c.nxt, wnd: 900, data: 100})
		p, _ := c.t.resolve(c.h)
		p.flags = p.flags&^(withTS|withSACK) | tc.is
		p.unlock()
		c.t.Stalled(c.h, c.isn+101)
		if got := c.mtus(); len(got) < 2 || got[1] != tc.want {
			t.Errorf("told %v, want %d", got, tc.want)
		}
	}
}
