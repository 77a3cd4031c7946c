package epollbridge

import (
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Names for a package that may implement [waiter.Waitable] but must not import gVisor.
type (
	// Waitable is an object that can be added to a Poller.
	Waitable = waiter.Waitable
	// EventMask is a set of readiness bits, with the values of Events.
	EventMask = waiter.EventMask
	// Entry is what a Waitable notifies, by its NotifyEvent.
	Entry = waiter.Entry
)

// Poller is an epoll instance over objects that have no descriptor. Its methods
// may be called from any goroutine, but none save Wake from a notification or from
// an object's Readiness, and none while holding a lock that an object's
// Readiness, EventRegister or EventUnregister takes.
type Poller struct {
	fd eventFd

	// mu guards what follows and the fields of every Registration added. It is a
	// leaf: nothing is called and nothing waits while it is held, and every
	// critical section is of constant length.
	mu    sync.Mutex
	ready list   // registrations that may have something to report
	loud  int    // of ready, those that are not quiet
	seq   uint64 // of the next to be linked there
	count int    // registrations

	sleepers []*sleeper // in Wait, nobody has woken them yet; the last is woken first
	resting  []*sleeper // for later use
	waiting  int        // calls of Wait
	awaken   bool       // Wake was called and no Wait has returned since
	polled   bool       // fd exists
	closed   bool

	blocked  int       // goroutines in hold
	released sync.Cond // busy or inHand was taken back, or waiting sank

	delivered, stale, wakeups uint64
}

// New returns an empty Poller. It holds no descriptor until [Poller.Fd].
func New() *Poller {
	p := new(Poller)
	p.fd.fd = -1
	p.released.L = &p.mu
	return p
}

// Add begins to watch object for events. What object is ready for already is
// reported too, so nothing that happened before is lost. r and object are the
// Poller's until Delete has returned; data comes back with every event.
//
// Errors: EINVAL for a nil object, bits that are not of this package, or Exclusive
// with RdHup or OneShot; EEXIST if r is added already, here or elsewhere;
// [ErrClosed]; what object.EventRegister returns.
func (p *Poller) Add(r *Registration, object waiter.Waitable, events Events, data uint64) error {
	if r == nil || object == nil || !events.valid() {
		return unix.EINVAL
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	if !r.poller.CompareAndSwap(nil, p) {
		p.mu.Unlock()
		return unix.EEXIST
	}
	events |= always
	r.object, r.events, r.data, r.state = object, events, data, busy
	p.count++
	p.mu.Unlock()

	// Registered first, asked second: what happens in between is notified.
	r.entry.Init((*listener)(r), watched)
	err := enter(r, object, events)
	var ready Events
	if err == nil {
		ready = events.readiness(object)
	}

	p.mu.Lock()
	var s signal
	switch {
	case err != nil:
		p.retire(r)
		p.forget(r)
	case ready&r.events != 0 && !p.closed:
		s = p.found(r)
		fallthrough
	default:
		r.state &^= busy
		p.unblock()
	}
	p.mu.Unlock()
	p.send(s)
	return err
}

// Modify changes what r waits for, and its data, and arms it again if OneShot had
// disarmed it. What the object is ready for already is reported.
//
// Errors: EINVAL for bits that are not of this package, and for Exclusive, now or
// when r was added; ENOENT if r is not added here; [ErrClosed].
func (p *Poller) Modify(r *Registration, events Events, data uint64) error {
	if r == nil || !events.valid() || events&Exclusive != 0 {
		return unix.EINVAL
	}
	p.mu.Lock()
	err := p.claim(r)
	switch {
	case err != nil:
	case p.closed:
		err = ErrClosed
	case r.events&Exclusive != 0:
		err = unix.EINVAL
	}
	if err != nil {
		p.mu.Unlock()
		return err
	}
	events |= always
	r.events, r.data = events, data
	object := r.object
	p.mu.Unlock()

	// The interest is set first and the object asked second: a change in between
	// is notified to the new interest.
	if events.readiness(object) == 0 {
		return nil
	}
	p.mu.Lock()
	var s signal
	// Meanwhile r may have been deleted, or even added again: to report too
	// often is harmless, because Wait asks the object.
	if r.poller.Load() == p && r.state&leaving == 0 && r.events.armed() && !p.closed {
		s = p.found(r)
	}
	p.mu.Unlock()
	p.send(s)
	return nil
}

// Delete ends the watch. Once it returns no Wait takes an event of r, none of its
// callbacks runs, and r may be used again. It waits for callbacks that are
// running. Events that a Wait took before are still in that caller's hands.
//
// Errors: EINVAL for nil; ENOENT if r is not added here. It works after Close, too;
// then what is not added is [ErrClosed].
func (p *Poller) Delete(r *Registration) error {
	if r == nil {
		return unix.EINVAL
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.claim(r); err != nil {
		return err
	}
	p.retire(r)
	object, events := r.object, r.events
	level := p.idle() && p.setLevel(false)
	p.mu.Unlock()
	p.send(signal{level: level})
	leave(r, object, events)
	p.mu.Lock()
	p.forget(r)
	return nil
}

// Close ends every Wait and returns after the last has returned; then no event is
// delivered, callbacks do nothing and the descriptor is closed. What is still
// added stays in its object's queue until Delete, or as long as the object lives.
// Close may be called again, and returns when all this is done.
func (p *Poller) Close() error {
	p.mu.Lock()
	p.closed = true
	sleepers := p.sleepers
	p.sleepers = nil
	p.mu.Unlock()
	for _, s := range sleepers {
		p.send(signal{sleeper: s})
	}
	p.mu.Lock()
	for p.waiting > 0 {
		p.hold()
	}
	p.mu.Unlock()
	p.fd.close()
	return nil
}

// Stats is a snapshot of a Poller's figures.
type Stats struct {
	Registered int    // registrations now
	Sleeping   int    // Waits that sleep now
	Delivered  uint64 // events returned by Wait
	Stale      uint64 // registrations that were looked at and had nothing to report any more
	Wakeups    uint64 // sleeping Waits that were woken
}

// Stats returns a snapshot.
func (p *Poller) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Registered: p.count,
		Sleeping:   len(p.sleepers),
		Delivered:  p.delivered,
		Stale:      p.stale,
		Wakeups:    p.wakeups,
	}
}

// The functions below are called with mu held.

// claim checks that r is added here and waits until it is not busy.
func (p *Poller) claim(r *Registration) error {
	for r.poller.Load() == p {
		if r.state&busy == 0 {
			return nil
		}
		p.hold()
	}
	if p.closed {
		return ErrClosed
	}
	return unix.ENOENT
}

// retire keeps r from being reported any more, but by a Wait that has it in hand,
// for which it waits.
func (p *Poller) retire(r *Registration) {
	r.state |= busy | leaving
	if r.state&linked != 0 {
		p.unlink(r)
	}
	for r.state&inHand != 0 {
		p.hold()
	}
}

// forget makes r, which is retired, unknown and free for another Add. It touches
// it no more after that.
func (p *Poller) forget(r *Registration) {
	p.count--
	p.unblock()
	r.state, r.object = 0, nil
	r.poller.Store(nil)
}

// unblock lets goroutines in hold look again.
func (p *Poller) unblock() {
	if p.blocked > 0 {
		p.released.Broadcast()
	}
}

// hold gives up mu until something is released.
func (p *Poller) hold() {
	p.blocked++
	p.released.Wait()
	p.blocked--
}

// found links r into the ready list, unless a Wait has it in hand, and picks who
// is to be woken. Callers give the result to send once mu is free.
func (p *Poller) found(r *Registration) signal {
	switch {
	case r.state&inHand != 0:
		r.state |= again
		return signal{}
	case r.state&linked == 0:
		p.link(r, 0)
	case r.state&quiet == 0:
		return signal{} // whoever was woken for it is still to come
	default:
		r.state &^= quiet
		p.loud++
	}
	return p.rouse()
}

// link puts r, which may be quiet, at the end of the ready list.
func (p *Poller) link(r *Registration, quiet state) {
	r.state |= linked | quiet
	if quiet == 0 {
		p.loud++
	}
	r.seq = p.seq
	p.seq++
	p.ready.push(r)
}

func (p *Poller) unlink(r *Registration) {
	if r.state&quiet == 0 {
		p.loud--
	}
	r.state &^= linked | quiet
	p.ready.remove(r)
}

// enter puts r into the object's queue.
func enter(r *Registration, object waiter.Waitable, events Events) error {
	if s, ok := object.(*Shared); ok && events&Exclusive != 0 {
		return s.join(r)
	}
	return object.EventRegister(&r.entry)
}

// leave undoes enter. Then no callback of r runs.
func leave(r *Registration, object waiter.Waitable, events Events) {
	if s, ok := object.(*Shared); ok && events&Exclusive != 0 {
		s.leave(r)
		return
	}
	object.EventUnregister(&r.entry)
}
