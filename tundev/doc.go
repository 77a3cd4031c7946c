// Package tundev owns the device: it makes a TUN, configures its interface, and
// moves frames between the device's file and the caller's memory.
//
// # Theory of operation
//
// golang.zx2c4.com/wireguard/tun creates the device, but its Read cuts every
// superframe into MTU-sized packets, and its goroutines wake once a second. This
// package therefore keeps a descriptor of what it made, ends the rest of it, and
// reads and writes frames raw:
//
//	[ virtio_net_hdr, 10 bytes ][ IP packet, up to 65,535 bytes ]
//
// one frame a system call, scattered to and gathered from memory that the caller
// owns (readv, writev). With TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6 set the kernel
// hands over superframes whole and takes them whole, which is worth a factor of
// ten in bulk traffic.
//
// A queue is meant to be a source of an event loop: [Queue.FD] for its epoll,
// [Queue.TryReadFrame] until EAGAIN. [Queue.ReadFrame] is for programs without
// one and sleeps on a thread. A write never blocks: a device that takes no more is
// reported as EAGAIN or ENOBUFS and the caller decides.
//
// # End of a device
//
// A device is over when it was closed here ([net.ErrClosed], also matched by
// [os.ErrClosed]) or deleted by someone else ([ErrGone]; the kernel says EBADFD,
// and EFAULT to a reader that was inside read). Both end Run of whoever reads.
// A link that is only down answers EIO to writes and is not over.
//
// # Goroutines
//
// None.
package tundev
