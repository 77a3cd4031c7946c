package gateway

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tungate/tungate/metrics"
)

const (
	// shedShare is the part of the connections that a step ends: a hundredth.
	shedShare = 100
	// shedLeast is how long a client must have been silent to count as idle.
	shedLeast = 5 * time.Second
)

// shortage is what is counted of memory being short.
type shortage struct {
	on       atomic.Bool
	episodes atomic.Uint64
	reset    atomic.Uint64 // connections
	before   uint64        // of these, when the episode began; the pacer's goroutine's
}

// refuse refuses new connections while memory is short, with a line at each end.
func (g *Gateway) refuse(on bool) {
	s := &g.short
	s.on.Store(on)
	g.stack.Shed(on)
	if !on {
		g.log.Info("memory is available again: new connections are taken", zap.Uint64("reset", s.reset.Load()-s.before))
		return
	}
	s.episodes.Add(1)
	s.before = s.reset.Load()
	g.log.Warn("nine tenths of the memory are used: new connections are refused until some is free; raise memory_limit or the container's limit",
		zap.Int64("limit", g.memory.Limit()))
}

// shed resets some of the connections that have been idle for longest, since to refuse
// new ones was not enough, with a line for the first.
func (g *Gateway) shed() int {
	s := &g.short
	n := g.stack.EndIdle(max(1, g.stack.Pending()/shedShare), shedLeast)
	if n > 0 && s.reset.Load() == s.before {
		g.log.Warn("memory is still short: connections idle for longest are reset, a hundredth each second")
	}
	s.reset.Add(uint64(n))
	return n
}

func (g *Gateway) memoryMetrics() metrics.Memory {
	s := &g.short
	return metrics.Memory{Limit: g.memory.Limit(), Pressure: s.on.Load(), Episodes: s.episodes.Load(), Reset: s.reset.Load()}
}
