package tundev

import (
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
)

// file is a device's descriptor. It is not an os.File, whose every frame would
// wake the runtime's poller as well as the loop that waits for it.
//
// A reference is held for the length of each call, and by the owner until close,
// so the number cannot become another file's while somebody uses it.
type file struct {
	fd     int
	wakefd int  // readable once closed, for readers that sleep
	bare   bool // the device has no virtio_net_hdr: the caller's stays here
	refs   atomic.Int64
	closed atomic.Bool
}

// newFile owns fd from now on, also when it fails.
func newFile(fd int) (*file, error) {
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f := &file{fd: fd, wakefd: wakefd}
	f.refs.Store(1)
	return f, unix.SetNonblock(fd, true)
}

// acquire takes a reference; false once closed.
func (f *file) acquire() bool {
	for {
		n := f.refs.Load()
		if n == 0 || f.closed.Load() {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *file) release() {
	if f.refs.Add(-1) == 0 {
		_ = unix.Close(f.fd)
		_ = unix.Close(f.wakefd)
	}
}

// close wakes who sleeps; the descriptor goes with the last reference.
func (f *file) close() {
	if f.closed.Swap(true) {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(f.wakefd, one[:])
	f.release()
}

// with calls fn with the descriptor.
func (f *file) with(fn func(fd int) error) error {
	if !f.acquire() {
		return net.ErrClosed
	}
	defer f.release()
	return fn(f.fd)
}

// FD implements Queue.
func (f *file) FD() int { return f.fd }

// TryReadFrame implements Queue.
func (f *file) TryReadFrame(iov []unix.Iovec) (int, error) {
	if !f.acquire() {
		return 0, net.ErrClosed
	}
	defer f.release()
	return f.read(iov)
}

// WriteFrame implements Queue.
func (f *file) WriteFrame(iov []unix.Iovec) error {
	if !f.acquire() {
		return net.ErrClosed
	}
	defer f.release()
	if !headed(iov) {
		return unix.EINVAL
	}
	// A header that says something asks for what nobody would do.
	if f.bare && header(iov)[0]|header(iov)[1] != 0 {
		return unix.EINVAL
	}
	_, err := f.transfer(unix.SYS_WRITE, unix.SYS_WRITEV, iov)
	return err
}

// read fills iov with one frame. One from a device without virtio_net_hdr gets the
// header that says nothing.
func (f *file) read(iov []unix.Iovec) (int, error) {
	if !headed(iov) {
		return 0, unix.EINVAL
	}
	n, err := f.transfer(unix.SYS_READ, unix.SYS_READV, iov)
	if err == nil && f.bare {
		*header(iov) = [offload.HdrLen]byte{}
		n += offload.HdrLen
	}
	return n, err
}

// header is what iov begins with, once headed has looked at it.
func header(iov []unix.Iovec) *[offload.HdrLen]byte {
	return (*[offload.HdrLen]byte)(unsafe.Pointer(iov[0].Base)) //nolint:gosec // of that length at least
}

// headed reports whether iov's first vector has room for the virtio_net_hdr, and
// there is room for more.
func headed(iov []unix.Iovec) bool {
	return len(iov) > 0 && iov[0].Len >= offload.HdrLen && (len(iov) > 1 || iov[0].Len > offload.HdrLen)
}

// transfer reads or writes one frame, without the header if the device has none:
// by call one if it is one piece, which saves the kernel a tenth of a microsecond,
// else by call many.
func (f *file) transfer(one, many uintptr, iov []unix.Iovec) (int, error) {
	if f.bare {
		if iov[0].Len == offload.HdrLen {
			iov = iov[1:]
		} else {
			whole := iov[0]
			defer func() { iov[0] = whole }()
			iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(whole.Base), offload.HdrLen)) //nolint:gosec // less than its length
			iov[0].Len -= offload.HdrLen
		}
	}
	call, at, n := many, unsafe.Pointer(&iov[0]), uintptr(len(iov)) //nolint:gosec // the caller's vectors
	if n == 1 {
		call, at, n = one, unsafe.Pointer(iov[0].Base), uintptr(iov[0].Len) //nolint:gosec // the caller's vector
	}
	return f.syscall(call, at, n)
}

// syscall makes a call that does not block, so the scheduler need not hear of it.
func (f *file) syscall(call uintptr, at unsafe.Pointer, n uintptr) (int, error) {
	for {
		moved, _, e := unix.RawSyscall(call, uintptr(f.fd), uintptr(at), n)
		switch e {
		case 0:
			return int(moved), nil
		case unix.EINTR:
		case unix.EBADFD, unix.EFAULT:
			// tun.c answers EBADFD once the device is detached, and EFAULT to
			// a reader that was inside when it went.
			return 0, ErrGone
		default:
			return 0, e
		}
	}
}

// ReadFrame implements Queue. It sleeps in poll(2), on a thread.
func (f *file) ReadFrame(iov []unix.Iovec) (int, error) {
	if !f.acquire() {
		return 0, net.ErrClosed
	}
	defer f.release()
	fds := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}, {Fd: int32(f.wakefd), Events: unix.POLLIN}} //nolint:gosec // descriptors
	for !f.closed.Load() {
		n, err := f.read(iov)
		if err != unix.EAGAIN { //nolint:errorlint // an errno as the kernel gave it
			return n, err
		}
		_, _ = unix.Poll(fds, -1)
	}
	return 0, net.ErrClosed
}
