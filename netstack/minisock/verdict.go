package minisock

// Verdict says what the caller is to do with a packet.
type Verdict uint8

// The verdicts. Of Inbound come all but Swallowed, of Outbound Pass, Swallowed and
// Dropped.
const (
	// Dropped packets end here; they were counted, and answered where that is due.
	Dropped Verdict = iota
	// Pass: the header was translated in place; deliver or write the packet.
	Pass
	// Dial: a new flow in mode DialFirst. Ask the upstream, then call Answer,
	// Refuse or Drop with Result.Handle. The packet is done with.
	Dial
	// Create: the handshake is done. Make the endpoint: Open, Establish, Ready.
	// Whether the packet is to be kept says Result.Held.
	Create
	// Hold: the endpoint is being made. Keep the packet behind the flow's others
	// and give it to Resume later.
	Hold
	// Later: the packet ends a connection, and can be shown again when there is
	// time. Nothing has come of it yet.
	Later
	// Swallowed packets of the stack were for this package.
	Swallowed
	NumVerdicts
)

var verdictNames = [NumVerdicts]string{
	Dropped: "dropped", Pass: "pass", Dial: "dial", Create: "create", Hold: "hold", Later: "later", Swallowed: "swallowed",
}

// String returns the verdict's name.
func (v Verdict) String() string {
	if v < NumVerdicts {
		return verdictNames[v]
	}
	return "unknown"
}

// Result is what became of a packet.
type Result struct {
	Verdict Verdict
	// Cause says why a packet was dropped or swallowed; None if it was not.
	Cause Cause
	// Held is valid with Create: the packet has data or a FIN, and is the first
	// of those to keep.
	Held bool
	// RTT is valid with Create: the milliseconds from SYN-ACK to its answer;
	// UnknownRTT if there were more, or several SYN-ACKs.
	RTT uint8
	// Gone says that with this packet, still to be delivered or written, the
	// record leaves the endpoint: both FINs are through, or a RST is. Nothing
	// passes between the endpoint and the client any more. What the endpoint has
	// received can still be read; then it is to be let go.
	Gone bool
	// Again says that the stack has sent what an outbound packet carries before. If
	// it is not acknowledged, and not sent once more, call Stalled.
	Again bool
	// Acked is valid with Again: the client has acknowledged everything before it.
	Acked uint32
	// Step, if not 0, is in what steps, of bytes, the stack is to be shown the ACK of an
	// inbound packet, by others before it; it acknowledges Fresh bytes more than the
	// last.
	Step  uint16
	Fresh uint32
	// Queue is the one to write an outbound packet to.
	Queue uint16
	// Owner is what SetOwner said, 0 if nothing.
	Owner uint32
	// Handle is the record's; zero if there is none.
	Handle Handle
}

// UnknownRTT is no round trip.
const UnknownRTT = 255

// Handle names a record for as long as it lives. The zero Handle names none. One
// whose record is gone is noticed, whatever became of the memory.
type Handle struct {
	hash  uint64
	index uint32
	gen   uint32
}

// Valid reports whether h was ever given out.
func (h Handle) Valid() bool { return h.gen != 0 }
