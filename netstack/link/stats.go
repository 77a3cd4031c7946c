package link

import "github.com/tungate/tungate/lan"

// DropReason says why a frame from the device, or a packet to it, was dropped.
type DropReason uint8

// The reasons of a drop. The first group is the frame's own fault, the second the
// guard's decision, the third the device's.
const (
	DropTruncated  DropReason = iota // shorter than a header it claims
	DropBadHdr                       // virtio_net_hdr contradicts the packet
	DropBadVersion                   // neither IPv4 nor IPv6
	DropBadIP                        // IP header length, total length or checksum wrong
	DropTransport                    // TCP, UDP or ICMP header wrong
	DropChecksum                     // transport checksum wrong
	DropGSO                          // superframe of a type not enabled
	DropFragment                     // fragment of a TCP segment: its checksum cannot be verified

	DropSource      // source no unicast address or not in Options.Sources
	DropDestination // destination loopback, unspecified, broadcast or reserved
	DropMulticast   // multicast: no service of ours (MLD, mDNS, SSDP ...)
	DropLand        // source and destination are the same address and port
	DropTooBig      // larger than the MTU, and not to be fragmented: answered with ICMP

	DropTxFull  // the device took no more (EAGAIN, ENOBUFS), and too many frames wait
	DropTxError // any other errno of a write
	DropTxBuild // an outbound packet the link could not encode
	NumDropReasons
)

var dropNames = [NumDropReasons]string{
	DropTruncated: "truncated", DropBadHdr: "bad_vnet_hdr", DropBadVersion: "bad_version",
	DropBadIP: "bad_ip_header", DropTransport: "bad_transport_header", DropChecksum: "bad_checksum",
	DropGSO: "gso_type", DropFragment: "tcp_fragment",
	DropSource: "martian_source", DropDestination: "martian_destination",
	DropMulticast: "multicast", DropLand: "land", DropTooBig: "too_big",
	DropTxFull: "tx_full", DropTxError: "tx_error", DropTxBuild: "tx_build",
}

// String returns the metric label.
func (r DropReason) String() string {
	if r < NumDropReasons {
		return dropNames[r]
	}
	return "unknown"
}

// Inbound reports whether r concerns frames from the device.
func (r DropReason) Inbound() bool { return r < DropTxFull }

// Counters are one direction of one queue.
type Counters struct {
	Frames          uint64
	Bytes           uint64 // IP packets, without virtio_net_hdr
	Superframes     uint64 // frames with a GSO type
	SuperframeBytes uint64
	PartialChecksum uint64 // frames whose checksum the other side completes
	SoftwareGSO     uint64 // superframes segmented here because the device can't
	Refused         uint64 // superframes the device refused (EINVAL), segmented here instead
	Merged          uint64 // frames that were merged into superframes here
	Outdated        uint64 // acknowledgments not delivered, since the next frame said all they did
	Verified        uint64 // frames whose checksum was computed here
	Split           uint64 // UDP superframes that were split into datagrams here
	Waited          uint64 // frames that waited for the device to take more
}

// QueueStats are the counters of one queue.
type QueueStats struct {
	Rx, Tx  Counters
	Waiting int // gauge: frames that wait for the device
}

// Stats is a snapshot of an Endpoint's counters.
type Stats struct {
	Queues []QueueStats
	Drops  [NumDropReasons]uint64
	LAN    lan.Stats // of a TAP
}
