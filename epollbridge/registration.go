package epollbridge

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Registration is one object's place in a [Poller], as a descriptor's is in an
// epoll. The caller embeds it in whatever it keeps for the object, so that a
// Poller allocates nothing; between Add and the return of Delete it must stay
// where it is. The zero value is ready for Add.
//
// An object that is to be watched twice, or by two Pollers, needs a Registration
// for each.
type Registration struct {
	entry  waiter.Entry           // in the object's queue from Add to Delete
	poller atomic.Pointer[Poller] // nil unless added; changed under that Poller's mu

	// What follows is guarded by poller.mu.

	events     Events // interest and modes
	state      state
	object     waiter.Waitable
	data       uint64
	next, prev *Registration // in the ready list; valid iff linked
	seq        uint64        // when it was linked; valid iff linked
}

// state is a set of facts about a Registration.
type state uint32

const (
	// busy: Add or Delete is between its two critical sections. No other call on
	// the Registration may begin.
	busy state = 1 << iota
	// leaving: Delete has begun, nothing links it any more.
	leaving
	// linked: in the ready list.
	linked
	// inHand: taken from the ready list by a Wait that is asking the object.
	inHand
	// again: notified while inHand, so that the answer may be too old.
	again
	// quiet: linked, and nobody was woken for it (Exclusive).
	quiet
)

// listener keeps the callback out of the method set of what embeds a Registration.
type listener Registration

// NotifyEvent implements waiter.EventListener.
func (l *listener) NotifyEvent(mask waiter.EventMask) { (*Registration)(l).notify(mask) }

// notify is the callback. It runs under the object's locks and asks it nothing: it
// links the Registration into the ready list and wakes one waiter. It reports
// whether it woke one.
func (r *Registration) notify(mask waiter.EventMask) bool {
	p := r.poller.Load()
	if p == nil {
		return false
	}
	p.mu.Lock()
	// An object that calls back after EventUnregister meets another Poller here,
	// or none.
	if p.closed || r.poller.Load() != p || r.state&leaving != 0 || !r.events.concerned(mask) {
		p.mu.Unlock()
		return false
	}
	s := p.found(r)
	p.mu.Unlock()
	return p.send(s)
}

// list is a doubly linked list of Registrations, in the order in which they came.
type list struct {
	head, tail *Registration
}

func (l *list) push(r *Registration) {
	r.prev = l.tail
	if l.tail != nil {
		l.tail.next = r
	} else {
		l.head = r
	}
	l.tail = r
}

func (l *list) remove(r *Registration) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		l.tail = r.prev
	}
	r.next, r.prev = nil, nil
}
