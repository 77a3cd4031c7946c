package flow

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Events is a set of readiness bits with the values of epoll(7).
type Events uint32

// The readiness bits.
const (
	EventIn    Events = unix.EPOLLIN    // bytes or end of stream can be read
	EventOut   Events = unix.EPOLLOUT   // bytes can be written
	EventRdHup Events = unix.EPOLLRDHUP // the client sent FIN
	EventHup   Events = unix.EPOLLHUP   // both directions are over
	EventErr   Events = unix.EPOLLERR   // the connection failed; a call returns why
)

// ErrWouldBlock says that a call would have had to wait. Its errno is EAGAIN.
var ErrWouldBlock error = wouldBlockError{}

type wouldBlockError struct{}

func (wouldBlockError) Error() string { return "flow: operation would block" }
func (wouldBlockError) Unwrap() error { return unix.EAGAIN }

// Error is a failure of one flow.
type Error struct {
	Op  string // "accept", "read", "write", "dial"
	ID  ID
	Err error // unwraps to a syscall.Errno or net.ErrClosed
}

func (e *Error) Error() string { return e.Op + " " + e.ID.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CloseReason says why a flow ended. It is a metric label, so the set is closed.
type CloseReason uint8

// The reasons a flow ends.
const (
	ReasonDone            CloseReason = iota // both sides finished in order
	ReasonClientReset                        // the client sent RST or vanished
	ReasonUpstreamReset                      // the upstream sent RST or vanished
	ReasonIdle                               // no byte either way for the idle timeout
	ReasonDrain                              // half-closed and silent for the drain timeout
	ReasonShutdown                           // the gateway is stopping
	ReasonEvicted                            // made room for another (UDP)
	ReasonError                              // anything else
	ReasonClientStalled                      // the client took nothing of what waited for it
	ReasonUpstreamStalled                    // the upstream took nothing of what waited for it
	numCloseReasons
)

// CloseReasons lists every reason, for collectors.
func CloseReasons() []CloseReason {
	all := make([]CloseReason, numCloseReasons)
	for i := range all {
		all[i] = CloseReason(i)
	}
	return all
}

func (r CloseReason) String() string {
	switch r {
	case ReasonDone:
		return "done"
	case ReasonClientReset:
		return "client_reset"
	case ReasonUpstreamReset:
		return "upstream_reset"
	case ReasonIdle:
		return "idle"
	case ReasonDrain:
		return "drain"
	case ReasonShutdown:
		return "shutdown"
	case ReasonEvicted:
		return "evicted"
	case ReasonError:
		return "error"
	case ReasonClientStalled:
		return "client_stalled"
	case ReasonUpstreamStalled:
		return "upstream_stalled"
	}
	return "unknown"
}

// ErrnoOf returns the errno that err unwraps to, 0 if none.
func ErrnoOf(err error) unix.Errno {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return 0
}
