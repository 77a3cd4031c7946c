package epollbridge

import (
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Source makes a [waiter.Waitable] of the two things gVisor gives for an endpoint:
// the endpoint, which knows what it is ready for, and the queue it was made with,
// which tells when that changes. Keep it beside the [Registration], so that Add
// allocates nothing.
type Source struct {
	Endpoint interface {
		Readiness(mask waiter.EventMask) waiter.EventMask
	}
	Queue *waiter.Queue
}

var _ waiter.Waitable = (*Source)(nil)

// Readiness implements waiter.Waitable.
func (s *Source) Readiness(mask waiter.EventMask) waiter.EventMask {
	return s.Endpoint.Readiness(mask)
}

// EventRegister implements waiter.Waitable.
func (s *Source) EventRegister(e *waiter.Entry) error {
	s.Queue.EventRegister(e)
	return nil
}

// EventUnregister implements waiter.Waitable.
func (s *Source) EventUnregister(e *waiter.Entry) { s.Queue.EventUnregister(e) }

// Shared stands before an object that several Pollers watch with [Exclusive], a
// listening endpoint that each of several loops accepts from: a notification goes
// to one Poller that has somebody asleep, in Wait or at its Fd, and to the others
// only if there is none. Each Poller must be given the same *Shared; whoever adds
// it without Exclusive is told always.
//
// A kernel object needs no such thing, because its wait queue stops at the first
// exclusive waiter that woke; a waiter.Queue calls everybody.
type Shared struct {
	object waiter.Waitable
	entry  waiter.Entry
	plain  waiter.Queue // of registrations without Exclusive

	// ctl serialises joining and leaving. It is held while object is called, so it
	// comes before object's locks, and mu after them.
	ctl   sync.Mutex
	users int // of entry, which is registered while there is one

	mu        sync.Mutex // before Poller.mu
	exclusive []*Registration
}

// Share returns a Shared before object. It is registered with object only while
// it is itself in a Poller, so it needs no closing.
func Share(object waiter.Waitable) *Shared {
	s := &Shared{object: object}
	s.entry.Init((*sharedListener)(s), watched)
	return s
}

var _ waiter.Waitable = (*Shared)(nil)

// Readiness implements waiter.Waitable.
func (s *Shared) Readiness(mask waiter.EventMask) waiter.EventMask { return s.object.Readiness(mask) }

// EventRegister implements waiter.Waitable.
func (s *Shared) EventRegister(e *waiter.Entry) error {
	return s.enter(func() { s.plain.EventRegister(e) })
}

// EventUnregister implements waiter.Waitable.
func (s *Shared) EventUnregister(e *waiter.Entry) {
	s.exit(func() { s.plain.EventUnregister(e) })
}

// join is EventRegister for an Exclusive registration.
func (s *Shared) join(r *Registration) error {
	return s.enter(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.exclusive = append(s.exclusive, r)
	})
}

// leave undoes join, after which no callback of r runs.
func (s *Shared) leave(r *Registration) {
	s.exit(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := slices.Index(s.exclusive, r)
		s.exclusive = slices.Delete(s.exclusive, i, i+1)
	})
}

// enter inserts with the entry registered. A notification between the two meets
// nobody, and need not: who adds asks for readiness afterwards.
func (s *Shared) enter(insert func()) error {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	if s.users == 0 {
		if err := s.object.EventRegister(&s.entry); err != nil {
			return err
		}
	}
	s.users++
	insert()
	return nil
}

func (s *Shared) exit(remove func()) {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	remove()
	s.users--
	if s.users == 0 {
		s.object.EventUnregister(&s.entry)
	}
}

// sharedListener keeps the callback out of Shared's method set.
type sharedListener Shared

// NotifyEvent implements waiter.EventListener. It runs under the object's locks.
func (l *sharedListener) NotifyEvent(mask waiter.EventMask) {
	s := (*Shared)(l)
	s.plain.Notify(mask)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.exclusive {
		if r.notify(mask) {
			return
		}
	}
}
