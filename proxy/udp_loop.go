package proxy

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// maxDatagram holds the largest UDP payload (RFC 768: the length field is 16 bits).
const maxDatagram = 65535

// receiveBatch bounds the datagrams of one event, after which other flows have
// their turn. An answer that comes alone costs one system call all the same.
const receiveBatch = 16

// RunTask implements loop.Runner: a session begins, or was evicted.
func (s *session) RunTask() {
	t := s.t
	t.mu.Lock()
	ended := s.ended
	t.mu.Unlock()
	if ended {
		s.close()
		return
	}
	if t.batch == nil {
		t.batch = newDatagramBatch()
	}
	// Level-triggered: what a batch leaves is told again, after the others.
	if err := t.loop.Add(&s.source, s.fd, unix.EPOLLIN); err != nil {
		s.end(flow.ReasonError)
		return
	}
	t.loop.Set(&s.timer, t.timeout(s))
}

// HandleEvents implements loop.Handler: there are answers, or an error.
func (s *session) HandleEvents(uint32) {
	n, errno := s.t.batch.receive(s.fd)
	switch {
	case errno == 0:
		s.answer(n)
	case errno == unix.EAGAIN:
	case errno == unix.ECONNREFUSED:
		s.w.RejectDatagram(s.id)
	case ofEarlier(errno):
	default:
		s.end(flow.ReasonError)
	}
}

// answer sends n datagrams to the client. They are counted before they go, so that
// who has seen one finds it counted.
func (s *session) answer(n int) {
	t := s.t
	total := 0
	for i := range n {
		total += len(t.batch.payload(i))
	}
	t.mu.Lock()
	if s.ended { // evicted: the client's port may be another flow's
		t.mu.Unlock()
		return
	}
	t.useLocked(s)
	t.countLocked(s, 0, total)
	t.mu.Unlock()
	lost := 0
	for i := range n {
		b := t.batch.payload(i)
		if s.w.WriteDatagram(s.id, s.id.Destination, b) != nil {
			lost += len(b)
		}
	}
	if lost > 0 {
		t.count(s, 0, -lost)
	}
}

// Expire implements loop.Expirer: the session has been idle, or may have been.
func (s *session) Expire() {
	t := s.t
	t.mu.Lock()
	rest := t.timeout(s) - (time.Since(t.start) - s.last)
	t.mu.Unlock()
	if rest > 0 {
		t.loop.Set(&s.timer, rest)
		return
	}
	s.end(flow.ReasonIdle)
}

// end removes and closes s, once.
func (s *session) end(r flow.CloseReason) {
	s.t.mu.Lock()
	ok := s.t.removeLocked(s, r)
	s.t.mu.Unlock()
	if ok {
		s.close()
	}
}

// close gives back what a session owns that was removed. It runs again for one
// that was evicted before it began.
func (s *session) close() {
	if s.fd < 0 {
		return
	}
	t := s.t
	t.loop.Stop(&s.timer)
	t.loop.Remove(&s.source)
	t.own.remove(s.local) // before the next socket may have that address
	s.sending.Lock()
	_ = unix.Close(s.fd)
	s.fd = -1
	s.sending.Unlock()
	t.d.dial.files.freed()
	t.mu.Lock()
	rec := Record{ID: s.id, Upstream: s.to, Reason: s.reason, Up: s.up, Down: s.down, Duration: time.Since(s.start)}
	t.mu.Unlock()
	t.counters.end(rec.Reason)
	t.d.trace(rec)
}

// datagramBatch is memory for the datagrams of one event. Only the pages that
// datagrams reach are ever touched.
type datagramBatch struct {
	memory [receiveBatch][maxDatagram]byte
	iovecs [receiveBatch]unix.Iovec
	msgs   [receiveBatch]mmsghdr
}

// mmsghdr is the kernel's struct of that name (recvmmsg(2)).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received
}

func newDatagramBatch() *datagramBatch {
	b := new(datagramBatch)
	for i := range b.msgs {
		b.iovecs[i].Base = &b.memory[i][0]
		b.iovecs[i].SetLen(maxDatagram)
		b.msgs[i].hdr.Iov = &b.iovecs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// receive reads what fd holds, as far as there is room, and returns how many
// datagrams that was.
func (b *datagramBatch) receive(fd int) (int, unix.Errno) {
	for {
		//nolint:gosec // the kernel writes to b alone
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// payload is the datagram i of the last receive, valid until the next.
func (b *datagramBatch) payload(i int) []byte { return b.memory[i][:b.msgs[i].n] }

// sendDatagram sends b, which may be empty, as one datagram.
func sendDatagram(fd uintptr, b []byte) unix.Errno {
	for {
		//nolint:gosec // the kernel reads b alone
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if e != unix.EINTR {
			return e
		}
	}
}
