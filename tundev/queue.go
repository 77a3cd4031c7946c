package tundev

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Queue is one queue of a device. One goroutine may read while any number write.
//
// Every frame has a virtio_net_hdr in front, 10 bytes that the first vector holds
// whole; what follows, there and in further vectors, is cut as the caller likes. A
// frame in one piece costs the kernel least: 0.1 us less for one of 1500 bytes than
// three pieces. A device without the header keeps to this: what is written in it is
// left out, so it must be zero, and what is read is zero. The vectors are the
// caller's again, as they were, after the call.
type Queue interface {
	// FD is the descriptor that epoll finds readable (EPOLLIN) when a frame
	// waits, writable (EPOLLOUT) when a write that was refused with EAGAIN,
	// ENOBUFS or EIO may be tried again, and in error when the device is gone;
	// -1 for a device in memory, which tells of nothing. Mostly a device is
	// writable: ask for EPOLLOUT after a refusal only. The descriptor stays the
	// device's, and must be taken out of an epoll before Close.
	FD() int

	// TryReadFrame scatters the next frame over iov and returns its length with
	// the header, or unix.EAGAIN. A frame longer than iov is cut by the kernel
	// without notice, so give it 10 + 65,535 bytes, on a TAP 18 more (Ethernet,
	// a VLAN tag). The error is net.ErrClosed after Close, ErrGone when the
	// device is gone.
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
