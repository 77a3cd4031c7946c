// Package tundev owns the device: it makes a TUN or TAP, attaches to one, or takes
// over one that somebody else opened; configures its interface; and moves frames
// between the device's queues and the caller's memory.
//
// # Theory of operation
//
// Frames are read and written raw, whole superframes included, one a system call,
// scattered to and gathered from memory that the caller owns (readv, writev; read
// and write if it is one piece):
//
//	[ virtio_net_hdr, 10 bytes ][ Ethernet header of a TAP ][ IP packet ]
//
// With TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6 the kernel hands superframes over
// whole and takes them whole, which is worth a factor of ten in bulk traffic; with
// TUN_F_USO4 and TUN_F_USO6 it hands over UDP superframes, which
// [github.com/tungate/tungate/offload.Segmenter] cuts. A device without the header
// is read and written past it, so that whoever is above sees one kind of device.
//
// Where a device is from, in the order of [CreateContext]:
//
//	Socket   wait for a message with the descriptors, then as
//	FDs      look at each, duplicate, close the original; find the interface
//	Attach   TUNSETIFF on a persistent device: one descriptor a queue
//	else     make it: TUNSETIFF, then IFF_MULTI_QUEUE for each further queue;
//	         the one queue of a TUN passes through golang.zx2c4.com/wireguard/tun
//
// Then the offloads are negotiated, a device made here gets its addresses, MTU and
// routes, and two superframes that the kernel drops prove that it takes them.
//
// A queue is meant to be a source of an event loop: [Queue.FD] for its epoll,
// [Queue.TryReadFrame] until EAGAIN. [Queue.ReadFrame] is for programs without
// one and sleeps on a thread. A write never blocks: a device that takes no more is
// reported as EAGAIN or ENOBUFS, and the descriptor tells when it takes more. The
// kernel keeps a flow on the queue that last wrote to it, else on one that a hash
// chooses (tun.c, tun_automq_select_queue).
//
// # What the kernel lacks
//
// Each [Offload] is a switch. Auto goes without what the kernel refuses and says so
// in [Device.Notes]; On makes it an error that names the setting; [Probe] reports
// all of it beforehand. Nothing is derived from a version number.
//
// # End of a device
//
// A device is over when it was closed here ([net.ErrClosed]) or deleted by someone
// else ([ErrGone]; the kernel says EBADFD, and EFAULT to a reader that was inside
// read). Both end Run of whoever reads; [Device.Watch] tells as well, while nobody
// reads. [Device.Options] makes it anew if [Device.Recreatable]. A link that is
// only down answers EIO to writes and is not over, nor is one that was renamed or
// moved to another namespace.
//
// # Goroutines
//
// None that outlive a call. Watch has the netlink library's four while it runs.
package tundev
