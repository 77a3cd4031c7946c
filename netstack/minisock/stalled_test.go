package minisock

import (
	"slices"
	"testing"
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
		c.out(p, seg{flags: ack, seq: stackISN + 1, ack: c.nxt, wnd: 900, data: 100})
		end := c.isn + 101
		for n := range 10 {
			if unacked, told := c.t.Stalled(c.h, end, n); !unacked || !told {
				t.Fatal("not told")
			}
		}
		want := []uint16{1419, 739, 399, 229, 144, 102, 81, 70, 68, 68} // the client's MSS is 1400, 40 of it for options
		if got := c.mtus(); !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}

		res, _ := c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 1, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		if unacked, told := c.t.Stalled(c.h, end, 0); !unacked || told || c.mtus() != nil {
			t.Error("a closed window is no stall")
		}

		c.fromStack(fin|ack, 100, 0)
		end++
		res, _ = c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 100, wnd: 500, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		if unacked, told := c.t.Stalled(c.h, end, 0); !unacked || !told || len(c.mtus()) != 1 {
			t.Error("a byte is missing before the FIN")
		}
		res, _ = c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 101, wnd: 500, opts: tsOpt(clientTS+9, c.ts)})
		c.goes(res, false)
		if unacked, told := c.t.Stalled(c.h, end-1, 0); unacked || told {
			t.Error("what is acknowledged is wanted")
		}
		c.silent()
		if unacked, told := c.t.Stalled(c.h, end, 0); !unacked || told || c.mtus() != nil {
			t.Error("the FIN is to be sent from here")
		}
		c.wants(c.reply(), p, fin|ack, end-1, irs+1)
		if c.counted(Nudged) != 11 || c.counted(FinAgain) != 1 {
			t.Errorf("counted %d and %d", c.counted(Nudged), c.counted(FinAgain))
		}

		c.fromClient(rst, 0, 0)
		if unacked, told := c.t.Stalled(c.h, end, 0); unacked || told {
			t.Error("what is gone is wanted")
		}
		c.empty()
	})
}

// TestStalledPlain: room for options is left as there are options.
func TestStalledPlain(t *testing.T) {
	for _, tc := range []struct {
		is   flags
		want uint16
	}{{withTS | withSACK, 740}, {withSACK, 20 + 36 + 682}, {withTS, 20 + 12 + 694}, {0, 720}} {
		c := newRig(t, nil).open(flow4).establish()
		c.out(flow4, seg{flags: ack, seq: stackISN + 1, ack: c.nxt, wnd: 900, data: 100})
		p, _ := c.t.resolve(c.h)
		p.flags = p.flags&^(withTS|withSACK) | tc.is
		p.unlock()
		c.t.Stalled(c.h, c.isn+101, 1)
		if got := c.mtus(); len(got) != 1 || got[0] != tc.want {
			t.Errorf("told %v, want %d", got, tc.want)
		}
	}
}
