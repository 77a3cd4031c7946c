package demo

import (
	"net/netip"
	"time"
)

// plan is what the client is to do.
type plan struct {
	Seed     uint64
	Families []target
	// Limit is when the client gives up.
	Limit time.Duration
	load
}

// bodySize is what each HTTP body has.
const bodySize = 64 << 10

// load is how much of everything, at most.
type load struct {
	// Connections are opened for each family, AtOnce at a time, and carry a
	// body up and down by turns.
	Connections, AtOnce int
	// Idle connections are open at the same time, over all families.
	Idle int
	// RoundTrips of one byte are made for each family.
	RoundTrips int
	// Patience is when a step that counts is cut short on a slow machine, for
	// each family.
	Patience time.Duration
	// Bulk is how long a bulk transfer lasts; there is one each way for each
	// family.
	Bulk time.Duration
}

// target is where the client finds the server by one family.
type target struct {
	Name string // of the family
	ports
}

// ports are the server's services.
type ports struct {
	HTTP, Echo, Bulk netip.AddrPort
}

// event is a line that the client writes. One field is set.
type event struct {
	Say    string   `json:",omitempty"` // progress
	Sample string   `json:",omitempty"` // take the memory's size now, under this name, then write a line
	Failed string   `json:",omitempty"` // a sentence
	Result *results `json:",omitempty"`
}

// The samples that the client asks for.
const (
	sampleBase = "base"
	sampleIdle = "idle"
)

// results are what the client measured.
type results struct {
	Families []familyResult
	Idle     int   // connections open at sampleIdle
	Checked  int64 // bytes compared
}

// familyResult is what the client measured by one family.
type familyResult struct {
	Name        string
	Connections int
	AtOnce      int
	ConnectTime time.Duration // of all Connections
	P50, P99    time.Duration // of a round trip
	Up, Down    rate
}

// rate is one bulk transfer.
type rate struct {
	Bytes int64
	Took  time.Duration
}

func (r rate) bitsPerSecond() float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Took.Seconds()
}

// bulkReport is what the receiving server answers to an upload.
type bulkReport struct {
	Bytes  int64
	Took   time.Duration
	Failed string `json:",omitempty"`
}

// A bulk connection begins with one byte.
const (
	bulkUp   = 'U'
	bulkDown = 'D'
)
