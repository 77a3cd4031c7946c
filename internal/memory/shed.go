package memory

import "time"

const (
	// patience is how long it may be enough to refuse new connections, and then
	// the least time between two steps: what was ended takes a while to be gone.
	patience = time.Second
	// resignation is the same where nothing was left to end.
	resignation = 10 * time.Second
)

// shedder ends connections while there is pressure, in steps.
type shedder struct {
	limit int64
	used  func() uint64
	free  func()     // collects garbage and gives it back
	shed  func() int // ends some connections and returns how many
	now   func() time.Time

	next time.Time // the next step; zero without pressure
}

// check is to be called often, with whether there is pressure, and does a step when
// one is due. Garbage is collected first, since only then is it known whether the
// last step was enough.
func (s *shedder) check(pressure bool) {
	switch {
	case !pressure:
		s.next = time.Time{}
		return
	case s.next.IsZero():
		s.next = s.now().Add(patience)
		return
	case s.now().Before(s.next):
		return
	}
	pause := patience
	if s.free(); pressed(true, s.used(), s.limit) && s.shed() == 0 {
		pause = resignation
	}
	s.next = s.now().Add(pause)
}
