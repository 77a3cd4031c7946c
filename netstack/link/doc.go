// Package link is the gVisor link endpoint over a TUN or TAP device whose frames
// begin with a virtio_net_hdr.
//
// # Theory of operation
//
// Inbound, in packet order (rx.go, ethernet.go, guard.go, toobig.go, flows.go):
//
//  1. read one frame: in one piece while small ones come, which costs the kernel
//     least; else its virtio_net_hdr and headers land in one place and its payload
//     in another;
//  2. on a TAP: package lan serves ARP, neighbor discovery and DHCP, and lets data
//     pass that comes from the station which has its source address. From here on
//     the Ethernet header is behind, and csum_start 14 bytes less;
//  3. parse: bounds of IP and transport headers (offload.Parse), virtio_net_hdr
//     against them (never trusting hdr_len);
//  4. guard: no martian source or destination, no land packet, no fragment of TCP;
//     what is larger than the MTU and may not be fragmented is answered with ICMP;
//  5. checksum policy: a partial checksum (NEEDS_CSUM) was never on a wire and
//     DATA_VALID was verified by the kernel; anything else is verified here,
//     because gVisor's switch for verified checksums is all or nothing per NIC;
//  6. show TCP, and ICMP errors about it, to the table of flows (package minisock),
//     which serves it, keeps it, or translates its header in place;
//  7. build views: a small frame is copied to a right-sized view, a superframe
//     keeps the memory it was read into, its headers in a view of their own,
//     since gVisor's PullUp copies a whole shared chunk;
//  8. deliver, whole: a TCP superframe is one packet to the stack. UDP superframes,
//     which it has not, are split before (offload.Segmenter).
//
// A device without TSO delivers segments one by one. A batch of them is merged
// into superframes after step 5 (rx_merge.go, offload.Coalescer), each frame's
// payload staying where it was read. Of bare acknowledgments in a row the last goes
// up, if it says all that the others do (offload.Outdated): the client acknowledges
// every second segment, and the stack would answer each with as little.
//
// Outbound (tx.go): gVisor hands over packets of up to 64 KiB with GSOOptions. TCP
// is shown to the table of flows, which translates it or keeps it in. The rest is
// told its queue, its Ethernet header on a TAP, its virtio_net_hdr, and leaves with
// one writev; where the device has no TSO or no checksum offload the work is done
// here instead (offload.Segmenter, offload.Complete). A superframe that the kernel
// refuses (EINVAL) is segmented and sent again; after three none is tried. RST and
// the like carry no GSOOptions, and an endpoint with CapabilityLoopback gets no
// transport checksums from the stack, so the partial sum is written here for them.
//
// Queues (steer.go): the kernel delivers a flow to the queue that it was last
// written to, so a flow must leave by the queue it came in by, or its frames would
// overtake each other. TCP's record knows its queue; for others a table of 65,536
// slots by a seeded hash does, with no lock.
//
// A full device (backlog.go): what it does not take (EAGAIN, ENOBUFS) waits in
// order, 256 frames or 4 MiB a queue, and later frames behind it. Past that frames
// are dropped and counted.
//
// A device that has had frames for a millisecond without a pause (press.go) is
// pressed: minisock then saves on answers, so that reading catches up, and resets that
// end connections, each thirty times the work of reading a frame, are kept for later
// (later.go).
//
// The ACKs of a flow that loses packets are shown to the stack a segment at a time
// (stepwise.go). A flow whose stack has sent something for the second time is looked at
// now and then until that is acknowledged (stalled.go), for gVisor can forget to send
// it a third.
//
// CapabilityLoopback is what lets one IPv4 address with prefix length 0 stand for
// every destination at a cost that does not grow with their number. It also turns
// gVisor's own martian filter off, hence the guard.
//
// # Ownership and goroutines
//
// A frame's memory is the link's until delivery and the stack's after; a packet
// given to an [Owner] is the Owner's. A queue with a descriptor is a source of the
// loop, and its goroutine only waits for its end; one without is read by that
// goroutine. One more calls the table's timers, one those of a TAP's lan, and one a
// queue writes what waits for a full device, as long as something does. All are
// Run's, and have ended when it returns.
//
// WritePackets runs on the stack's goroutines, with the connection's lock held, and
// never blocks. With that lock held it takes those of the table, of lan and of the
// backlog; none of them is held while the stack is called.
package link
