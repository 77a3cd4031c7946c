package loop

import (
	"runtime"
	"time"
)

const (
	// spinFor is how long the loop looks for events before it sleeps, if lately they
	// came that soon: as long as an answer from next door takes, and about what it
	// costs to be woken.
	spinFor = 20 * time.Microsecond
	// spinBelow is the mean of the last waits up to which it does. One of longest is
	// enough for the next ones to sleep at once.
	spinBelow = 2 * spinFor
	longest   = 16 * spinBelow
)

// patience decides whether the next wait begins with looking instead of sleeping. It
// goes by what the last ones took, so that a loop with little to do leaves the
// processor alone, and one that has answers to wait for is not put to sleep and woken
// for each.
type patience struct {
	alone bool          // on the only processor: whom it waits for needs that
	mean  time.Duration // of the last waits, the newest an eighth
}

func (p *patience) init() {
	p.alone = runtime.NumCPU() == 1
	p.mean = longest
}

func (p *patience) spins() bool { return !p.alone && p.mean < spinBelow }

// note learns how long a wait was.
func (p *patience) note(wait time.Duration) {
	p.mean += (min(wait, longest) - p.mean) / 8
}

// spin looks for events and tasks for a while; false if none came.
func (l *Loop) spin(start time.Time) (events int, came bool) {
	for time.Since(start) < spinFor {
		if l.pending() {
			return 0, true
		}
		if n := l.poll(0); n > 0 {
			return n, true
		}
	}
	return 0, false
}
