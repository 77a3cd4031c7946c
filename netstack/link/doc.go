// Package link is the gVisor link endpoint over a TUN device with vnet_hdr.
//
// # Theory of operation
//
// Inbound, in packet order (rx.go, guard.go):
//
//  1. read one frame: its virtio_net_hdr, its headers and its payload land in
//     three places with one readv;
//  2. parse: bounds of IP and transport headers (offload.Parse), virtio_net_hdr
//     against them (never trusting hdr_len);
//  3. guard: no martian source or destination, no land packet;
//  4. checksum policy: a partial checksum (NEEDS_CSUM) was never on a wire and
//     DATA_VALID was verified by the kernel; anything else is verified here,
//     because gVisor's switch for verified checksums is all or nothing per NIC;
//  5. build views: a small frame is copied to a right-sized view, a superframe
//     keeps the memory it was read into, its headers in a view of their own,
//     since gVisor's PullUp copies a whole shared chunk;
//  6. deliver, whole: a superframe is one packet to the stack.
//
// A device without TSO delivers segments one by one. A batch of them is merged
// into superframes after step 4 (rx_merge.go, offload.Coalescer), each frame's
// payload staying where it was read.
//
// Outbound (tx.go): gVisor hands over packets of up to 64 KiB with GSOOptions.
// They get a virtio_net_hdr and leave with one writev; where the device has no
// TSO or no checksum offload the work is done here instead (offload.Segmenter,
// offload.Complete). SYN-ACK and RST carry no GSOOptions, and an endpoint with
// CapabilityLoopback gets no transport checksums from the stack, so the partial
// sum is written here for them.
//
// CapabilityLoopback is what lets one IPv4 address with prefix length 0 stand for
// every destination at a cost that does not grow with their number. It also turns
// gVisor's own martian filter off, hence the guard.
//
// # Ownership and goroutines
//
// A frame's memory is the link's until delivery and the stack's after. A queue
// with a descriptor is a source of the loop; one without is read by a goroutine of
// Run. WritePackets runs on the stack's goroutines, with the connection's lock
// held, and never blocks.
package link
