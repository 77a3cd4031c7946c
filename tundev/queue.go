package tundev

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Queue is one queue of a device. One goroutine may read while any number write.
type Queue interface {
	// ReadFrame scatters the next frame, virtio_net_hdr first, over iov and
	// returns its length. It waits for one to arrive. A frame longer than iov
	// is cut by the kernel without notice, so give it 10 + 65,535 bytes.
	// The error is net.ErrClosed after Close, ErrGone when the device is gone.
	ReadFrame(iov []unix.Iovec) (int, error)

	// TryReadFrame is ReadFrame that returns unix.EAGAIN instead of waiting.
	TryReadFrame(iov []unix.Iovec) (int, error)

	// WriteFrame gathers one frame from iov. It never waits: the error is a
	// unix.Errno (EAGAIN, ENOBUFS: the device takes no more now; EIO: link
	// down; EINVAL: the kernel refuses this frame), net.ErrClosed or ErrGone.
	WriteFrame(iov []unix.Iovec) error
}

// ErrGone says that the device was deleted under us.
var ErrGone = errors.New("the device was deleted")

// fileQueue is a queue over a TUN file that the runtime's poller watches.
type fileQueue struct {
	rc     syscall.RawConn
	read   readOp // used by the one reader
	writes sync.Pool
}

func newFileQueue(f *os.File) (*fileQueue, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &fileQueue{rc: rc}
	q.read.fn = q.read.once
	q.writes.New = func() any {
		op := new(writeOp)
		op.fn = op.once
		return op
	}
	return q, nil
}

// readOp carries one read's arguments and results through RawConn.Read without
// an allocation per call.
type readOp struct {
	iov  []unix.Iovec
	wait bool
	n    int
	err  unix.Errno
	fn   func(fd uintptr) bool
}

// once reads. False tells the poller to wait until the file is readable: the
// read must be tried inside, because the readiness is edge-triggered.
func (op *readOp) once(fd uintptr) bool {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&op.iov[0])), uintptr(len(op.iov)))
		op.n, op.err = int(n), e
		if e != unix.EINTR {
			return e != unix.EAGAIN || !op.wait
		}
	}
}

func (q *fileQueue) ReadFrame(iov []unix.Iovec) (int, error)    { return q.do(iov, true) }
func (q *fileQueue) TryReadFrame(iov []unix.Iovec) (int, error) { return q.do(iov, false) }

func (q *fileQueue) do(iov []unix.Iovec, wait bool) (int, error) {
	op := &q.read
	op.iov, op.wait = iov, wait
	err := q.rc.Read(op.fn)
	op.iov = nil
	if err != nil {
		return 0, q.why()
	}
	if op.err != 0 {
		return 0, ioError(op.err)
	}
	return op.n, nil
}

// why tells apart the two ends of waiting: the file was closed here, or the kernel
// reports EPOLLERR, which a TUN does once it is deleted (tun.c, tun_chr_poll) and
// which the runtime's poller answers with an error of its own.
func (q *fileQueue) why() error {
	if q.rc.Control(func(uintptr) {}) != nil {
		return net.ErrClosed
	}
	return ErrGone
}

type writeOp struct {
	iov []unix.Iovec
	err unix.Errno
	fn  func(fd uintptr)
}

func (op *writeOp) once(fd uintptr) {
	for {
		_, _, op.err = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&op.iov[0])), uintptr(len(op.iov)))
		if op.err != unix.EINTR {
			return
		}
	}
}

// WriteFrame goes through Control, which holds the file open for the call, and
// not through Write, which would let only one writer in at a time.
func (q *fileQueue) WriteFrame(iov []unix.Iovec) error {
	op := q.writes.Get().(*writeOp)
	op.iov = iov
	err := q.rc.Control(op.fn)
	errno := op.err
	op.iov = nil
	q.writes.Put(op)
	if err != nil {
		return net.ErrClosed
	}
	if errno != 0 {
		return ioError(errno)
	}
	return nil
}

// ioError translates a deleted device: EBADFD from tun.c's file operations once
// the device is detached, EFAULT from a read that slept while it went.
func ioError(e unix.Errno) error {
	if e == unix.EBADFD || e == unix.EFAULT {
		return ErrGone
	}
	return e
}
