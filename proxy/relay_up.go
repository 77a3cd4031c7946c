package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// upHalf moves what the client sent to the upstream socket.
type upHalf struct {
	r     *relay
	stats *flowCounters
	ready chan struct{} // the client's side may have news
	moved uint64
	stall stall        // the socket does not take what the client sent
	queue atomic.Int64 // what the socket held then

	pumpFn func(fd uintptr) bool // pump, made once
	w      sockWriter
	n      int64
	err    error

	sending sync.Mutex // held while the socket is written to
	failed  unix.Errno // guarded by sending: what a write to the socket returned
}

func (h *upHalf) init(r *relay, s *flowCounters) {
	h.r, h.stats, h.ready = r, s, make(chan struct{}, 1)
	h.pumpFn = h.pump
}

// run ends with the client's FIN passed on, or with the relay.
func (h *upHalf) run() {
	for {
		if err := h.r.sock.rc.Write(h.pumpFn); err != nil {
			h.r.interrupted()
			return
		}
		switch {
		case h.w.err != 0:
			// What the upstream sent before is still to be read, so the
			// other direction decides how the relay ends: a server that
			// answers early and closes must be heard.
			h.r.halfDone()
			h.discard()
			return
		case h.err == nil:
		case errors.Is(h.err, flow.ErrWouldBlock):
			<-h.ready
		case errors.Is(h.err, io.EOF):
			h.r.sock.closeWrite()
			h.r.halfDone()
			return
		case errors.Is(h.err, net.ErrClosed):
			return
		default:
			h.r.finish(flow.ReasonClientReset, true)
			return
		}
	}
}

// pump runs with the socket's descriptor; false waits until it takes more.
func (h *upHalf) pump(fd uintptr) bool {
	h.sending.Lock()
	h.w = sockWriter{fd: fd}
	h.n, h.err = h.r.conn.ReadTo(&h.w)
	h.failed = h.w.err
	h.sending.Unlock()
	if h.n > 0 {
		h.moved += uint64(h.n)
		h.stats.bytesUp.Add(uint64(h.n))
		h.r.touch()
	}
	if !h.w.full {
		h.stall.end()
		return true
	}
	if h.stall.begin(h.r.sinceStart(), h.n > 0) {
		h.queue.Store(unacknowledged(fd))
		h.r.arm()
	}
	return false
}

// progress renews the stall's time if the upstream has taken some bytes: that a
// socket has room it tells only when a third of it is free.
func (h *upHalf) progress() {
	_ = h.r.sock.control(func(fd int) error {
		if n := unacknowledged(uintptr(fd)); n < h.queue.Swap(n) {
			h.stall.begin(h.r.sinceStart(), true)
		}
		return nil
	})
}

// unacknowledged is how many bytes fd holds that the upstream has not taken.
func unacknowledged(fd uintptr) int64 {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return int64(n)
}

// discard takes what the client still sends to nowhere, until the other direction
// is over. A client that reads only when it has sent everything would otherwise
// never come to hear why the upstream takes no more. No byte here counts as a
// sign of life, so the drain timeout bounds it.
func (h *upHalf) discard() {
	for !h.r.bothDone() {
		_, err := h.r.conn.ReadTo(io.Discard)
		switch {
		case err == nil:
		case errors.Is(err, flow.ErrWouldBlock):
			<-h.ready
		default:
			return
		}
	}
}

// sawReset reports whether a write to the socket was told of a reset. The kernel
// tells it once, to whoever asks first, and a read after that finds an end of
// stream like any other. EPIPE is no reset: it follows the upstream's FIN.
func (h *upHalf) sawReset() bool {
	h.sending.Lock()
	defer h.sending.Unlock()
	return h.failed != 0 && h.failed != unix.EPIPE
}

// sockWriter sends slices of the stack's memory, without waiting.
type sockWriter struct {
	fd   uintptr
	sent int64      // what the socket has taken
	full bool       // the socket takes no more now
	err  unix.Errno // the socket takes no more ever
}

var errStop = errors.New("proxy: the socket takes no more")

func (w *sockWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		//nolint:gosec // the kernel reads p alone, which is not empty
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, w.fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		switch {
		case e == 0 && int(n) == len(p):
			w.sent += int64(n)
			return len(p), nil
		case e == 0:
			w.sent += int64(n)
			w.full = true
			return int(n), errStop
		case e == unix.EINTR:
		case e == unix.EAGAIN:
			w.full = true
			return 0, errStop
		default:
			w.err = e
			return 0, errStop
		}
	}
}
