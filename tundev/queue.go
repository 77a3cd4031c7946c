package tundev

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Queue is one queue of a device. One goroutine may read while any number write.
type Queue interface {
	// FD is the descriptor that epoll finds readable when a frame waits, and in
	// error when the device is gone; -1 for a device in memory. It stays the
	// device's, and must be taken out of an epoll before Close.
	FD() int

	// TryReadFrame scatters the next frame, virtio_net_hdr first, over iov and
	// returns its length, or unix.EAGAIN. A frame longer than iov is cut by the
	// kernel without notice, so give it 10 + 65,535 bytes. The error is
	// net.ErrClosed after Close, ErrGone when the device is gone.
	TryReadFrame(iov []unix.Iovec) (int, error)

	// ReadFrame is TryReadFrame that waits.
	ReadFrame(iov []unix.Iovec) (int, error)

	// WriteFrame gathers one frame from iov. It never waits: the error is a
	// unix.Errno (EAGAIN, ENOBUFS: the device takes no more now; EIO: link
	// down; EINVAL: the kernel refuses this frame), net.ErrClosed or ErrGone.
	WriteFrame(iov []unix.Iovec) error
}

// ErrGone says that the device was deleted under us.
var ErrGone = errors.New("the device was deleted")
