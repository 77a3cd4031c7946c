package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

const (
	// smallRead is the first try of a read: enough for a request or an answer,
	// and copied once more, which costs less than asking how much there is.
	smallRead = 16 << 10
	// bigRead bounds one pass from a socket into the stack: the longest a bulk
	// flow keeps the connection's lock.
	bigRead = 1 << 20
)

// scratch holds buffers of smallRead for the length of one read.
var scratch = sync.Pool{New: func() any { return new([smallRead]byte) }}

// downHalf moves what the upstream sent to the client.
type downHalf struct {
	r     *relay
	stats *flowCounters
	ready chan struct{} // the client's side may have news
	moved uint64
	stall stall // the client does not take what the socket gave

	pumpFn func(fd uintptr) bool // pump, made once
	state  downState             // what the last pass ended with
	stash  []byte                // read and not yet taken by the stack
	bulk   bool                  // the last read was a full one
	sp     slicePayload
	fp     sockPayload
}

// downState is what a step ended with.
type downState uint8

const (
	downMore   downState = iota // bytes moved, and there may be others
	downWait                    // nothing to read: the poller waits
	downFull                    // the client takes no more now
	downEOF                     // the upstream sent FIN
	downFailed                  // the upstream failed
	downClient                  // the client's side failed or is closed
)

func (h *downHalf) init(r *relay, s *flowCounters) {
	h.r, h.stats, h.ready = r, s, make(chan struct{}, 1)
	h.pumpFn = h.pump
}

// run ends with the upstream's FIN passed on, or with the relay.
func (h *downHalf) run() {
	for {
		if err := h.r.sock.rc.Read(h.pumpFn); err != nil {
			h.r.interrupted()
			return
		}
		switch h.state {
		case downMore, downWait:
		case downFull:
			if h.stall.begin(h.r.sinceStart(), false) {
				h.r.arm()
			}
			<-h.ready
		case downEOF:
			if h.r.up.sawReset() {
				h.r.finish(flow.ReasonUpstreamReset, true)
				return
			}
			_ = h.r.conn.CloseWrite()
			h.r.halfDone()
			return
		case downFailed:
			h.r.finish(flow.ReasonUpstreamReset, true)
			return
		case downClient:
			h.r.finish(flow.ReasonClientReset, true)
			return
		}
	}
}

// pump runs with the socket's descriptor; false waits until it is readable.
func (h *downHalf) pump(fd uintptr) bool {
	for {
		if h.state = h.step(fd); h.state != downMore {
			return h.state != downWait
		}
	}
}

// step moves bytes once.
func (h *downHalf) step(fd uintptr) downState {
	if b := h.stash; len(b) > 0 {
		h.stash = nil
		return h.pass(b)
	}
	if h.bulk {
		// SIOCINQ, which is FIONREAD, says exactly what a read will deliver.
		if avail, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ); err == nil && avail >= smallRead {
			return h.readBulk(fd, min(avail, bigRead))
		}
		h.bulk = false
	}
	return h.readSmall(fd)
}

// readSmall reads once through a scratch buffer.
func (h *downHalf) readSmall(fd uintptr) downState {
	b := scratch.Get().(*[smallRead]byte)
	defer scratch.Put(b)
	n, e := recv(fd, b[:])
	switch {
	case e == unix.EAGAIN:
		return downWait
	case e != 0:
		return downFailed
	case n == 0:
		return downEOF
	}
	h.bulk = n == smallRead
	return h.pass(b[:n])
}

// readBulk lets the stack read n bytes of the socket into its own memory.
func (h *downHalf) readBulk(fd uintptr, n int) downState {
	h.fp = sockPayload{fd: fd, n: n}
	moved, err := h.r.conn.WriteFrom(&h.fp)
	h.count(moved)
	if h.fp.err != 0 {
		return downFailed
	}
	return afterWrite(err)
}

// pass gives b to the stack and keeps what it does not take.
func (h *downHalf) pass(b []byte) downState {
	for len(b) > 0 {
		h.sp.b = b
		n, err := h.r.conn.WriteFrom(&h.sp)
		h.sp.b = nil
		h.count(n)
		b = b[n:]
		if s := afterWrite(err); s != downMore {
			if s == downFull {
				h.stash = append([]byte(nil), b...)
			}
			return s
		}
	}
	return downMore
}

func (h *downHalf) count(n int64) {
	if n > 0 {
		h.moved += uint64(n)
		h.stats.bytesDown.Add(uint64(n))
		h.stall.end()
		h.r.touch()
	}
}

// afterWrite judges what a write to the client returned.
func afterWrite(err error) downState {
	switch {
	case err == nil:
		return downMore
	case errors.Is(err, flow.ErrWouldBlock):
		return downFull
	}
	return downClient
}

func recv(fd uintptr, b []byte) (int, unix.Errno) {
	for {
		//nolint:gosec // the kernel writes to b alone, which is not empty
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// slicePayload is a flow.Payload over bytes in memory.
type slicePayload struct{ b []byte }

func (p *slicePayload) Len() int { return len(p.b) }

func (p *slicePayload) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b)
	p.b = p.b[n:]
	return n, nil
}

// sockPayload is a flow.Payload over bytes that a socket holds for sure.
type sockPayload struct {
	fd  uintptr
	n   int
	err unix.Errno
}

func (p *sockPayload) Len() int { return p.n }

func (p *sockPayload) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, e := recv(p.fd, b)
	if e != 0 {
		p.err = e
		return 0, e
	}
	if n == 0 {
		// The socket was reset since it was asked how much it holds.
		p.err = unix.ECONNRESET
		return 0, net.ErrClosed
	}
	return n, nil
}
