// Package offload knows what a TUN device with virtio_net_hdr puts in front of a
// packet, and does in software what the other side of that header left undone:
// checksums, segmentation and the gathering of segments. It is pure computation: no
// fd, no goroutine, no allocation per packet, and it keeps no byte it was given
// longer than each function says.
//
// # Theory of operation
//
// A frame on the device is a header of [HdrLen] bytes ([Hdr]) and one IP packet
// of up to 64 KiB. The header says that work was deferred: a checksum that holds
// the pseudo-header sum alone (NEEDS_CSUM), or a superframe, many segments under
// one set of headers (a [GSOType] and a GSO size). Passing superframes whole is
// where the speed comes from, so the usual frame is looked at and not changed.
//
// Inbound, in this order:
//
//  1. [Hdr.Decode] the header.
//  2. [Parse] the packet. What comes out ([Packet]) is offsets, lengths and the
//     flow key, proven to lie inside the frame. Nothing downstream needs to check
//     a length again.
//  3. [Hdr.Check] the header against the packet. A header is a claim by somebody
//     else: the kernel's own hdr_len is skb_headlen, not the length of the headers
//     (include/linux/virtio_net.h, virtio_net_hdr_from_skb), and with vhost or a
//     shared device a guest wrote it. Lengths are recomputed from the packet, and
//     a header that contradicts them is refused.
//  4. [VerifyTransport] where the header carries neither NEEDS_CSUM nor
//     DATA_VALID, since nobody has verified such a packet yet.
//  5. [Coalescer], where the device has no superframes to give: it makes them.
//
// Outbound, a frame goes out as it is where the device has the offload. Where it
// has not, [Complete] finishes the checksum of a plain frame and [Segmenter] cuts
// a superframe into frames of the MTU. The cut copies headers only; payload stays
// where it is and leaves as slices for a writev.
//
// The result of each step is a [Verdict], never an error: a bad frame costs a
// counter.
//
// # Coalescing
//
// A device without virtio_net_hdr or without TSO delivers a bulk flow as frames of
// the MTU, and the stack behind spends on each what it spends on a superframe of
// forty-five. A [Coalescer] takes the frames of one batch, as many as the device had
// to give, and hands back superframes, with a [Hdr] as the kernel would have put
// before them. It reads headers only and copies one of them per superframe; payload
// stays where it was read and leaves as slices, for the caller to copy or to build
// views on.
//
// What joins what is the kernel's rule (tcp_gro_receive and what it calls): the same
// flow and headers, the next sequence number, equal length until a shorter segment,
// FIN or PSH ends the packet; IPv4 identifications that count up or, with DF, stand
// still; a verified checksum. Two properties go further than the kernel:
//
//   - Order. A frame that cannot join waits behind its flow's frames that are held,
//     and passes at once where there are none; one whose flow cannot be seen, a
//     fragment, asks for all to be taken out before it ([Drain]). The kernel lets a
//     packet with IPv4 options, a fragment or a bad checksum overtake. Packets leave in
//     the order of their first frames, and nothing outlives its batch: no timer is
//     needed, and a lone frame is held no longer than the device has more to give.
//   - Identity. A [Segmenter] makes of each superframe the very frames that it was
//     made of, with their checksums complete. So merging loses nothing that a
//     receiver could have known: every bare acknowledgment, window, timestamp and ECN
//     mark arrives as it was sent. The one thing Hdr cannot say is that all segments
//     share an identification; Merged.FixedID and Segmenter.FixedID say it.
//
// The room of a batch bounds everything: frames, flows and time. Per frame it is 27 ns
// where one flow fills the batch and 41 where each frame has a flow of its own.
//
// # Limits
//
// TCP and UDP over IPv4 and IPv6 are segmented, with IPv4 options and with
// extension headers. UFO (gso_type 3), UDP tunnel types and IPv6 jumbograms
// (RFC 2675) are refused. Only TCP without IPv4 options and without extension headers
// is merged, into at most 65535 bytes. A fragment's transport header is never looked
// at: in a first fragment it may be cut, in the others there is none.
package offload
