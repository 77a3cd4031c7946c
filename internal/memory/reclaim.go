package memory

import "time"

const (
	// reclaimEvery is how often connections are counted.
	reclaimEvery = 5 * time.Second
	// reclaimLeast are some 30 MB of endpoints; for less no collection is worth it.
	reclaimLeast = 5000
)

// reclaimer gives memory back when connections have ended in mass, and when they have
// come in mass and stay. What they leave is garbage that nobody would collect: the
// collector runs when the heap has grown, or after two minutes, and gives back at a
// hundredth of a processor. To open a connection leaves half as much as it keeps.
type reclaimer struct {
	open   func() int // connections now
	free   func()     // gives memory back
	most   int        // connections since memory was given back
	least  int        // the same
	before int        // connections when last counted
}

// count gives memory back if the number of connections has halved or doubled and
// hardly changes any more: a collection costs by those that are there.
func (r *reclaimer) count() {
	now := r.open()
	moving := max(now-r.before, r.before-now) > r.before/10
	r.before, r.most, r.least = now, max(r.most, now), min(r.least, now)
	gone, came := r.most-now, now-r.least
	ended := gone >= reclaimLeast && gone >= r.most/2
	stay := came >= reclaimLeast && came >= now/2
	if moving || !ended && !stay {
		return
	}
	r.free()
	r.most, r.least = now, now
}
