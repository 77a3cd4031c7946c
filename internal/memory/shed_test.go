package memory

import (
	"testing"
	"time"
)

// TestShedder: steps begin a second after pressure, end with it, and none is done for
// garbage.
func TestShedder(t *testing.T) {
	const tick = 100 * time.Millisecond
	for _, c := range []struct {
		name    string
		used    uint64 // of 100
		garbage uint64 // of that
		each    uint64 // what a step brings
		idle    int    // connections that may be ended
		lasts   time.Duration
		steps   int // that ended any
		frees   int
	}{
		{"no pressure", 80, 0, 1, 99, time.Minute, 0, 0},
		{"it is over before", 95, 0, 1, 99, 900 * time.Millisecond, 0, 0},
		{"garbage", 95, 20, 1, 99, time.Minute, 0, 1},
		{"until it is over", 95, 0, 2, 99, time.Minute, 5, 6},
		{"a step a second", 99, 0, 1, 99, 5 * time.Second, 4, 4},
		{"nobody is idle", 99, 0, 1, 0, time.Minute, 0, 6},
		{"some are", 99, 0, 1, 2, 10 * time.Second, 2, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, steps, frees := time.Unix(0, 0), 0, 0
			used, garbage, idle, on := c.used, c.garbage, c.idle, false
			s := &shedder{
				limit: 100, now: func() time.Time { return now }, used: func() uint64 { return used },
				free: func() { frees++; used, garbage = used-garbage, 0 },
				shed: func() int {
					if idle == 0 {
						return 0
					}
					idle--
					steps++
					garbage += c.each
					return 1
				},
			}
			for range c.lasts / tick {
				on = pressed(on, used, 100)
				s.check(on)
				now = now.Add(tick)
			}
			if steps != c.steps || frees != c.frees {
				t.Errorf("%d steps, %d collections; want %d, %d", steps, frees, c.steps, c.frees)
			}
		})
	}
}
