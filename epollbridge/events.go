package epollbridge

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Events is a set of readiness bits and modes with the values of epoll(7).
type Events uint32

// What a registration can wait for. [Err] and [Hup] are always waited for.
const (
	In    Events = unix.EPOLLIN    // a read would not block: data, end of stream, a connection to accept
	Out   Events = unix.EPOLLOUT   // a write would not block
	RdHup Events = unix.EPOLLRDHUP // the peer sends no more
	Err   Events = unix.EPOLLERR   // the object failed; a call returns why
	Hup   Events = unix.EPOLLHUP   // both directions are over
)

// How a registration is told. Without any of them it is level-triggered.
const (
	// Edge reports readiness once for each notification by the object, instead
	// of as long as it lasts (EPOLLET).
	Edge Events = unix.EPOLLET
	// OneShot reports once, then not again until [Poller.Modify] (EPOLLONESHOT).
	OneShot Events = unix.EPOLLONESHOT
	// Exclusive lets one notification wake one sleeping [Poller.Wait], not all
	// that could report it (EPOLLEXCLUSIVE). For waiters of several Pollers add
	// the same [Shared] to each. Only for Add, with In, Out and Edge alone.
	Exclusive Events = unix.EPOLLEXCLUSIVE
)

const (
	conditions = In | Out | RdHup | Err | Hup
	modes      = Edge | OneShot | Exclusive
	always     = Err | Hup
	// exclusiveOK is what the kernel lets go with EPOLLEXCLUSIVE.
	exclusiveOK = In | Out | Err | Hup | Edge | Exclusive
	// watched is what every entry is registered for. It is not narrowed to the
	// interest, since a queued entry's mask can only be changed by the object.
	watched = waiter.EventMask(conditions)
)

// The bits of epoll(7), poll(2) and gVisor are the same, so that none is translated.
const (
	_ = -uint64(In ^ Events(waiter.EventIn))
	_ = -uint64(Out ^ Events(waiter.EventOut))
	_ = -uint64(RdHup ^ Events(waiter.EventRdHUp))
	_ = -uint64(Err ^ Events(waiter.EventErr))
	_ = -uint64(Hup ^ Events(waiter.EventHUp))
)

// Event is what [Poller.Wait] returns of one registration.
type Event struct {
	Events Events // what it is ready for, of what it asked for and Err and Hup
	Data   uint64 // what was given to Add or Modify
}

// Names in the order of epoll_ctl(2).
var eventNames = []struct {
	bit  Events
	name string
}{
	{In, "IN"},
	{Out, "OUT"},
	{RdHup, "RDHUP"},
	{Err, "ERR"},
	{Hup, "HUP"},
	{Edge, "ET"},
	{OneShot, "ONESHOT"},
	{Exclusive, "EXCLUSIVE"},
}

// String formats the set as "IN|RDHUP|ET", "0" if it is empty.
func (e Events) String() string {
	var names []string
	for _, n := range eventNames {
		if e&n.bit != 0 {
			names = append(names, n.name)
			e &^= n.bit
		}
	}
	if e != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(e)))
	}
	if names == nil {
		return "0"
	}
	return strings.Join(names, "|")
}

// valid reports whether Add takes the set.
func (e Events) valid() bool {
	return e&^(conditions|modes) == 0 && (e&Exclusive == 0 || e&^exclusiveOK == 0)
}

// armed reports whether anything is waited for: not after a OneShot was reported.
func (e Events) armed() bool { return e&conditions != 0 }

// concerned reports whether a notification of mask may have made a registration
// with this interest ready. gVisor announces the peer's FIN as In alone and leaves
// it to Readiness to say RdHup.
func (e Events) concerned(mask waiter.EventMask) bool {
	if e&RdHup != 0 {
		e |= In
	}
	return e.armed() && waiter.EventMask(e&conditions)&mask != 0
}

// readiness asks object what it is ready for, of e. It asks for In with RdHup
// because gVisor looks for the peer's FIN only when asked for In, and it masks the
// answer because objects may answer more than they were asked: an endpoint in its
// final state everything, any object Err and Hup.
func (e Events) readiness(object waiter.Waitable) Events {
	ask := waiter.EventMask(e & conditions)
	if e&RdHup != 0 {
		ask |= waiter.EventIn
	}
	return Events(object.Readiness(ask)&watched) & e
}

// ErrClosed is returned by every method of a closed [Poller]. It is
// [net.ErrClosed] and EBADF to [errors.Is].
var ErrClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string   { return "epollbridge: use of closed poller" }
func (closedError) Unwrap() []error { return []error{net.ErrClosed, unix.EBADF} }
