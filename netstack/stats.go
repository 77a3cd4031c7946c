package netstack

import (
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/netstack/minisock"
)

// Stats is a snapshot of a Stack's counters. Counters only grow; gauges say so.
type Stats struct {
	Link  link.Stats
	Flows minisock.Stats

	// TCP admission.
	Established     int    // gauge: connections handed to a handler, not yet closed
	Accepted        uint64 // handshakes completed
	Refused         uint64 // attempts answered with RST by the handler's wish
	Dropped         uint64 // attempts left unanswered by the handler's wish
	HandshakeFailed uint64 // attempts that came to nothing, mostly by the client
	HalfOpenLimit   uint64 // SYNs past Options.MaxHalfOpen or a share of it; see Options.Overflow
	ConnectionLimit uint64 // SYNs reset at Options.MaxConnections
	BufferGrowth    int64  // gauge: bytes by which connections' buffers have grown
	BufferBudget    int64  // gauge: Options.TCP.BufferBudget

	// UDP.
	DatagramsIn       uint64
	DatagramsOut      uint64
	DatagramBytesIn   uint64
	DatagramBytesOut  uint64
	DatagramsBad      uint64 // length field or checksum wrong
	DatagramsRejected uint64 // answered with ICMP port unreachable

	TCP  TCPStats
	ICMP ICMPStats
}

// TCPStats are gVisor's own counters of the TCP layer.
type TCPStats struct {
	SegmentsReceived      uint64
	SegmentsSent          uint64
	SegmentSendErrors     uint64
	Retransmits           uint64
	FastRetransmits       uint64
	SlowStartRetransmits  uint64
	Timeouts              uint64
	ResetsSent            uint64
	ResetsReceived        uint64
	InvalidSegments       uint64
	ChecksumErrors        uint64
	CurrentEstablished    uint64 // gauge
	CurrentConnected      uint64 // gauge
	EstablishedResets     uint64
	EstablishedTimedout   uint64
	FailedPortReservation uint64
}

// ICMPStats are gVisor's own counters of both ICMP versions, added up.
type ICMPStats struct {
	EchoReceived        uint64
	EchoRepliesSent     uint64
	UnreachableSent     uint64
	UnreachableReceived uint64
	RateLimited         uint64
}
