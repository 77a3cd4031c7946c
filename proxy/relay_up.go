package proxy

import (
	"errors"
	"io"
	"net"
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

	pumpFn func(fd uintptr) bool // pump, made once
	w      sockWriter
	n      int64
	err    error
}

func (h *upHalf) init(r *relay, s *flowCounters) {
	h.r, h.stats, h.ready = r, s, make(chan struct{}, 1)
	h.pumpFn = h.pump
}

// run ends with the client's FIN passed on, or with the relay.
func (h *upHalf) run() {
	for {
		if err := h.r.sock.rc.Write(h.pumpFn); err != nil {
			return // closed by finish
		}
		switch {
		case h.w.err != 0:
			h.upstreamGone()
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
	h.w = sockWriter{fd: fd}
	h.n, h.err = h.r.conn.ReadTo(&h.w)
	if h.n > 0 {
		h.moved += uint64(h.n)
		h.stats.bytesUp.Add(uint64(h.n))
		h.r.touch()
	}
	return !h.w.full
}

// upstreamGone ends this direction when the upstream takes no more. What it sent
// before is still to be read, so the other direction decides how the relay ends:
// a server that answers early and closes must be heard.
func (h *upHalf) upstreamGone() {
	h.r.halfDone()
}

// sockWriter sends slices of the stack's memory, without waiting.
type sockWriter struct {
	fd   uintptr
	full bool       // the socket takes no more now
	err  unix.Errno // the socket takes no more ever
}

var errStop = errors.New("proxy: the socket takes no more")

func (w *sockWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, w.fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		switch {
		case e == 0 && int(n) == len(p):
			return len(p), nil
		case e == 0:
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
