package proxy

import (
	"sync/atomic"

	"github.com/tungate/tungate/flow"
)

// flowCounters is FlowStats while it counts.
type flowCounters struct {
	open            atomic.Int64
	opened          atomic.Uint64
	bytesUp         atomic.Uint64
	bytesDown       atomic.Uint64
	closed          [10]atomic.Uint64 // by flow.CloseReason
	dials           [NumDialResults]atomic.Uint64
	sessionLimit    atomic.Uint64 // UDP alone
	datagramsPassed atomic.Uint64 // UDP alone: sends the socket did not take
}

func (c *flowCounters) begin() {
	c.open.Add(1)
	c.opened.Add(1)
}

func (c *flowCounters) end(r flow.CloseReason) {
	c.open.Add(-1)
	c.closed[r].Add(1)
}

func (c *flowCounters) snapshot() FlowStats {
	s := FlowStats{
		Open:      int(c.open.Load()),
		Opened:    c.opened.Load(),
		BytesUp:   c.bytesUp.Load(),
		BytesDown: c.bytesDown.Load(),
		Closed:    make(map[flow.CloseReason]uint64, len(c.closed)),
	}
	for _, r := range flow.CloseReasons() {
		s.Closed[r] = c.closed[r].Load()
	}
	for i := range c.dials {
		s.Dials[i] = c.dials[i].Load()
	}
	return s
}
