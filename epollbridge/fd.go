package epollbridge

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Fd returns a descriptor that poll(2), epoll(7) and io_uring find readable while
// [Poller.Wait] has something to look at: a registration that may be ready, a
// Wake. So a Poller nests in a real epoll; when the descriptor is readable, call
// Wait with a timeout of 0. It is level-triggered; who watches it edge-triggered
// must call Wait until it returns 0 events. Nobody but the Poller may read, write
// or close it.
//
// The first call makes the descriptor, and from then on it is kept level by a
// system call when the first registration becomes ready and one when the last was
// returned.
//
// Errors: those of eventfd(2), such as EMFILE; [ErrClosed].
func (p *Poller) Fd() (int, error) {
	p.fd.mu.Lock()
	defer p.fd.mu.Unlock()
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return -1, ErrClosed
	case p.fd.fd >= 0:
		return p.fd.fd, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	p.fd.fd = fd
	p.mu.Lock()
	p.polled = true
	p.mu.Unlock()
	p.fd.syncLocked()
	return fd, nil
}

// eventFd is an eventfd(2) that is readable while level is true. level changes
// under Poller.mu, the descriptor follows outside of it, because a system call
// takes time: whoever changed level calls sync afterwards, and the last of them
// finds the last level, in whatever order they come.
type eventFd struct {
	level atomic.Bool

	mu     sync.Mutex // before Poller.mu
	fd     int        // -1 while there is none
	raised bool       // the descriptor is readable
	buf    [8]byte    // of read and write
}

// sync makes the descriptor what level says.
func (e *eventFd) sync() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.syncLocked()
}

func (e *eventFd) syncLocked() {
	level := e.level.Load()
	if e.fd < 0 || level == e.raised {
		return
	}
	// Neither call can block or fail: the counter is 0 or 1 and only changes here.
	if level {
		e.buf = [8]byte{1} // in either byte order not 0, and far from overflow
		_, _ = unix.Write(e.fd, e.buf[:])
	} else {
		_, _ = unix.Read(e.fd, e.buf[:])
	}
	e.raised = level
}

func (e *eventFd) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd >= 0 {
		unix.Close(e.fd)
	}
	e.fd = -1
}
