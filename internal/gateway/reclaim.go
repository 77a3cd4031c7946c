package gateway

import (
	"context"
	"runtime/debug"
	"time"
)

// When many connections end at once their memory is garbage that nobody collects:
// the collector runs when the heap has doubled, or after two minutes, and what it
// frees is given back at a hundredth of a processor. So they are counted, and the
// memory given back when enough are gone.
const (
	// reclaimEvery is how often they are counted.
	reclaimEvery = 5 * time.Second
	// reclaimLeast are some 30 MB of endpoints; for less no collection is worth it.
	reclaimLeast = 5000
)

// reclaimer gives memory back after a mass of connections ended.
type reclaimer struct {
	open   func() int // connections now
	free   func()     // gives memory back
	most   int        // connections since memory was given back
	before int        // connections when last counted
}

// run counts until ctx is done.
func (r *reclaimer) run(ctx context.Context) error {
	tick := time.NewTicker(reclaimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.count()
		case <-ctx.Done():
			return nil
		}
	}
}

// count gives memory back if half of the connections are gone and hardly any are
// going still: a collection costs by those that are left.
func (r *reclaimer) count() {
	now := r.open()
	going := now < r.before-r.before/10
	r.before, r.most = now, max(r.most, now)
	if gone := r.most - now; going || gone < reclaimLeast || gone < r.most/2 {
		return
	}
	r.free()
	r.most = now
}

// reclaim is the part that does so for as long as the gateway runs.
func (g *Gateway) reclaim(ctx context.Context) error {
	r := reclaimer{open: g.stack.Pending, free: debug.FreeOSMemory}
	return r.run(ctx)
}
