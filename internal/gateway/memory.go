package gateway

import (
	"go.uber.org/zap"

	"github.com/tungate/tungate/metrics"
)

// shed refuses new connections while memory is short, with a line at each end.
func (g *Gateway) shed(on bool) {
	g.short.Store(on)
	g.stack.Shed(on)
	if !on {
		g.log.Info("memory is available again: new connections are taken")
		return
	}
	g.episodes.Add(1)
	g.log.Warn("nine tenths of the memory are used: new connections are refused until some is free; raise memory_limit or the container's limit",
		zap.Int64("limit", g.memory.Limit()))
}

func (g *Gateway) memoryMetrics() metrics.Memory {
	return metrics.Memory{Limit: g.memory.Limit(), Pressure: g.short.Load(), Episodes: g.episodes.Load()}
}
