package loop

import (
	"golang.org/x/sys/unix"
)

// Handler is told what a Source's descriptor is ready for.
type Handler interface {
	// HandleEvents gets epoll's events (EPOLLIN ...) on the loop's goroutine.
	HandleEvents(events uint32)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(events uint32)

// HandleEvents calls f.
func (f HandlerFunc) HandleEvents(events uint32) { f(events) }

// Source is a descriptor that a loop waits for. Embed it in what it belongs to.
type Source struct {
	handler    Handler
	fd         int32
	generation uint32 // tells this use of a descriptor number from the one before
	added      bool
}

// Init sets the source's handler, before Add.
func (s *Source) Init(h Handler) { s.handler = h }

// Add waits for events (EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET) on fd, which stays
// the caller's. It must be called on the loop's goroutine or before Run.
func (l *Loop) Add(s *Source, fd int, events uint32) error {
	for fd >= len(l.sources) {
		l.sources = append(l.sources, make([]*Source, max(64, len(l.sources)))...)
	}
	l.generation++
	s.generation = l.generation
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(s.generation)} //nolint:gosec // numbers of ours
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return err
	}
	s.fd, s.added = int32(fd), true //nolint:gosec // a descriptor
	l.sources[fd] = s
	return nil
}

// Remove ends waiting; close the descriptor after, not before. Later calls do
// nothing. It must be called on the loop's goroutine.
func (l *Loop) Remove(s *Source) {
	if !s.added {
		return
	}
	s.added = false
	l.sources[s.fd] = nil
	// It fails only if the descriptor was closed already, which ended it too.
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, int(s.fd), nil)
}

// Forget ends waiting for a descriptor that is closed right after, which takes it out
// of the epoll: a system call less than Remove. No duplicate of it may be open. It
// must be called on the loop's goroutine.
func (l *Loop) Forget(s *Source) {
	if s.added {
		s.added = false
		l.sources[s.fd] = nil
	}
}
