package epollbridge

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Wait waits until a registration is ready, Wake is called, the timeout is over or
// the Poller is closed, and fills events with what registrations are ready for, no
// registration twice, those first that became so first. It returns how many it
// filled: 0 after the timeout or Wake. A negative timeout is none, 0 only looks.
// Any number of goroutines may wait at once.
//
// Errors: EINVAL if there is no room in events; [ErrClosed].
func (p *Poller) Wait(events []Event, timeout time.Duration) (int, error) {
	if len(events) == 0 {
		return 0, unix.EINVAL
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, ErrClosed
	}
	p.waiting++
	n, more, err := p.wait(events, timeout)
	p.waiting--
	p.unblock()
	var s signal
	if more && p.loud > 0 { // nobody else has taken it yet
		s = p.rouse()
	} else {
		s.level = p.setLevel(!p.idle())
	}
	p.mu.Unlock()
	p.send(s)
	return n, err
}

// Wake lets one Wait return at once, with what there is or with nothing: one that
// sleeps, else the next that is called. Calls before that count as one. The
// descriptor is readable until then.
func (p *Poller) Wake() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.awaken = true
	s := p.rouse()
	p.mu.Unlock()
	p.send(s)
}

// The functions below are called with mu held.

// wait is Wait without its bookkeeping. more says that another Wait should look
// at the ready list, too.
func (p *Poller) wait(events []Event, timeout time.Duration) (n int, more bool, err error) {
	var s *sleeper
	expired := timeout == 0
	for {
		n, more = p.harvest(events)
		switch {
		case n > 0:
			p.awaken = false
		case p.closed:
			err = ErrClosed
		case p.awaken:
			p.awaken = false
		case expired:
		case p.ready.head != nil:
			continue // linked while harvest looked at others
		default:
			if s == nil {
				s = p.newSleeper(timeout)
			}
			expired = p.sleep(s)
			continue
		}
		if s != nil {
			p.rest(s)
		}
		return n, more, err
	}
}

// harvest goes through the ready list as it is at the start and asks each object,
// with mu free, what it is ready for. What became ready later, and what is put
// back because it is level-triggered, is for the next time: so no registration is
// seen twice and none keeps the others from their turn. more says that there is
// something another Wait could return.
func (p *Poller) harvest(events []Event) (n int, more bool) {
	end := p.seq
	for n < len(events) {
		r := p.ready.head
		if r == nil || r.seq >= end {
			return n, more
		}
		p.unlink(r)
		r.state |= inHand
		object, interest := r.object, r.events
		p.mu.Unlock()
		ready := interest.readiness(object)
		p.mu.Lock()
		// Modify may have narrowed the interest meanwhile; if it widened it, it
		// has asked the object itself.
		ready &= r.events
		if ready != 0 {
			events[n] = Event{ready, r.data}
			n++
		}
		more = p.settle(r, ready) || more
	}
	return n, more || p.loud > 0
}

// settle lets r, whose object answered ready, out of hand. It reports whether r
// went back into the ready list and somebody should be woken for it.
func (p *Poller) settle(r *Registration, ready Events) (back bool) {
	renewed := r.state&again != 0
	r.state &^= inHand | again
	p.unblock()
	switch {
	case ready == 0:
		p.stale++
	case r.events&OneShot != 0:
		p.delivered++
		r.events &= modes
		return false
	default:
		p.delivered++
	}
	level := ready != 0 && r.events&Edge == 0
	if r.state&leaving != 0 || !renewed && !level {
		return false
	}
	if !renewed && r.events&Exclusive != 0 {
		p.link(r, quiet)
		return false
	}
	p.link(r, 0)
	return true
}

// idle reports whether a Wait would find nothing to do.
func (p *Poller) idle() bool { return p.ready.head == nil && !p.awaken }

// signal is what is left to be done when mu is free, because it takes time: a
// sleeper to wake, a descriptor to level.
type signal struct {
	sleeper *sleeper
	level   bool
}

// send does what s says, with mu free, and reports whether that woke anybody. A
// descriptor that becomes readable wakes whoever polls it.
func (p *Poller) send(s signal) bool {
	if s.sleeper != nil {
		s.sleeper.token <- struct{}{}
	}
	if s.level {
		p.fd.sync()
	}
	return s.sleeper != nil || s.level
}

// rouse picks the sleeper that is to look at the ready list, and raises the
// descriptor. The last to sleep is the first to wake, as in the kernel: its memory
// is warm, and those that are not needed sleep on.
func (p *Poller) rouse() signal {
	s := signal{level: p.setLevel(true)}
	if last := len(p.sleepers) - 1; last >= 0 {
		s.sleeper = p.sleepers[last]
		p.sleepers[last] = nil
		p.sleepers = p.sleepers[:last]
		p.wakeups++
	}
	return s
}

// setLevel says whether the descriptor shall be readable, and whether somebody has
// to call its sync therefor.
func (p *Poller) setLevel(readable bool) bool {
	if p.fd.level.Load() == readable {
		return false
	}
	p.fd.level.Store(readable)
	return p.polled
}

// sleeper is a Wait that sleeps. It is in Poller.sleepers until somebody picks it,
// who then sends exactly one token: that is why a sleep is woken once at most.
type sleeper struct {
	token chan struct{} // holds one, so that nobody waits to send it
	timer *time.Timer   // nil until a timeout was wanted
	timed bool          // timer runs
}

// newSleeper returns one whose timer runs if timeout is not negative.
func (p *Poller) newSleeper(timeout time.Duration) *sleeper {
	var s *sleeper
	if last := len(p.resting) - 1; last >= 0 {
		s = p.resting[last]
		p.resting = p.resting[:last]
	} else {
		s = &sleeper{token: make(chan struct{}, 1)}
	}
	s.timed = timeout >= 0
	switch {
	case !s.timed:
	case s.timer == nil:
		s.timer = time.NewTimer(timeout)
	default:
		s.timer.Reset(timeout)
	}
	return s
}

// rest keeps s for later use.
func (p *Poller) rest(s *sleeper) {
	if s.timed {
		s.timer.Stop()
	}
	p.resting = append(p.resting, s)
}

// sleep gives up mu until s is picked, or its time is over.
func (p *Poller) sleep(s *sleeper) (expired bool) {
	p.sleepers = append(p.sleepers, s)
	level := p.setLevel(false)
	p.mu.Unlock()
	p.send(signal{level: level})
	expired = s.park()
	p.mu.Lock()
	if !expired {
		return false
	}
	if i := slices.Index(p.sleepers, s); i >= 0 {
		p.sleepers = slices.Delete(p.sleepers, i, i+1)
		return true
	}
	// Picked at the last moment: its token is on the way.
	p.mu.Unlock()
	<-s.token
	p.mu.Lock()
	return true
}

// park returns at the token (false) or the end of the time (true).
func (s *sleeper) park() bool {
	if !s.timed {
		<-s.token
		return false
	}
	select {
	case <-s.token:
		return false
	case <-s.timer.C:
		return true
	}
}
