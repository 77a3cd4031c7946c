package proxy

import "github.com/tungate/tungate/flow"

// DialResult classifies the outcome of one upstream dial. It is a metric label.
type DialResult uint8

// The outcomes of a dial.
const (
	DialOK          DialResult = iota
	DialRefused                // ECONNREFUSED
	DialTimeout                // Options.ConnectTimeout, ETIMEDOUT
	DialUnreachable            // EHOSTUNREACH, ENETUNREACH
	DialDenied                 // the destination policy forbids it
	DialNoPorts                // EADDRNOTAVAIL: no source port left
	DialNoFiles                // EMFILE, ENFILE
	DialError                  // anything else
	NumDialResults
)

var dialNames = [NumDialResults]string{"ok", "refused", "timeout", "unreachable", "denied", "no_ports", "no_files", "error"}

func (r DialResult) String() string {
	if r < NumDialResults {
		return dialNames[r]
	}
	return "unknown"
}

// FlowStats count the flows of one protocol.
type FlowStats struct {
	Open      int    // gauge
	Opened    uint64 // flows served so far
	BytesUp   uint64 // client to upstream, payload
	BytesDown uint64 // upstream to client, payload
	Closed    map[flow.CloseReason]uint64
	Dials     [NumDialResults]uint64
}

// Stats is a snapshot of a handler's counters.
type Stats struct {
	TCP, UDP FlowStats

	// UDPSessionLimit counts sessions evicted for a new one at
	// UDPOptions.MaxSessions.
	UDPSessionLimit uint64
	// UDPDropped counts datagrams the upstream socket took no more of.
	UDPDropped uint64

	// FilesShort is true while new flows are refused for want of descriptors,
	// and until some seconds after the last; FilesShortages counts how often
	// that began. FlowStats.Dials counts each flow.
	FilesShort     bool
	FilesShortages uint64
}
