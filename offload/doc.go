// Package offload knows what a TUN device with virtio_net_hdr puts in front of a
// packet, and does in software what the other side of that header left undone:
// checksums and segmentation. It is pure computation: no fd, no goroutine, no
// allocation per packet, and it keeps no byte it was given longer than each
// function says.
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
//
// Outbound, a frame goes out as it is where the device has the offload. Where it
// has not, [Complete] finishes the checksum of a plain frame and [Segmenter] cuts
// a superframe into frames of the MTU. The cut copies headers only; payload stays
// where it is and leaves as slices for a writev.
//
// The result of each step is a [Verdict], never an error: a bad frame costs a
// counter.
//
// # Limits
//
// TCP and UDP over IPv4 and IPv6 are segmented, with IPv4 options and with
// extension headers. UFO (gso_type 3), UDP tunnel types and IPv6 jumbograms
// (RFC 2675) are refused. A fragment's transport header is never looked at: in a
// first fragment it may be cut, in the others there is none.
package offload
