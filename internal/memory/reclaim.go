package memory

import "time"

const (
	// reclaimEvery is how often connections are counted.
	reclaimEvery = 5 * time.Second
	// reclaimLeast are some 30 MB of endpoints; for less no collection is worth it.
	reclaimLeast = 5000
)

// reclaimer gives memory back after a mass of connections ended. What they leave is
// garbage that nobody would collect: the collector runs when the heap has grown, or
// after two minutes, and gives back at a hundredth of a processor.
type reclaimer struct {
	open   func() int // connections now
	free   func()     // gives memory back
	most   int        // connections since memory was given back
	before int        // connections when last counted
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
