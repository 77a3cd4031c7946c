package offload

// Fate says what became of a frame that was offered to a Coalescer, and with it
// who has its bytes.
type Fate uint8

// The fates.
const (
	Pass     Fate = iota // not taken: deliver it now, nothing it could overtake is held
	Held                 // taken, the first frame of a packet
	Joined               // taken, the next frame of a packet
	Drain                // not taken: call Next until it returns false, then Add again
	NumFates             // for arrays of counters
)

var fateNames = [NumFates]string{Pass: "pass", Held: "held", Joined: "joined", Drain: "drain"}

// String returns the word used as a metric label.
func (f Fate) String() string {
	if f < NumFates {
		return fateNames[f]
	}
	return "unknown"
}

// Bar says what kept a frame from joining an earlier one of its flow.
type Bar uint8

// The bars, in the order in which they are looked for.
const (
	BarNone       Bar = iota // it joined
	BarNotTCP                // another protocol, or a fragment of one
	BarFragment              // may be of any flow that is held
	BarSuper                 // a superframe already
	BarUnverified            // nobody vouches for its TCP checksum
	BarOptions               // IPv4 options or IPv6 extension headers
	BarFlags                 // SYN, RST or URG; CWR, which only a first segment may carry
	BarEmpty                 // no payload: an acknowledgment is a message by itself
	BarFirst                 // nothing of its flow is held
	BarFull                  // no room, or some of the batch was taken out already
	BarEnded                 // what is held of its flow ended: FIN, PSH, a short segment, another bar
	BarHeader                // IP or TCP header or options differ in more than segments do
	BarSequence              // not the next byte: loss, reordering or a retransmission
	BarSize                  // longer than the segments before it, or 65535 bytes exceeded
	BarID                    // IPv4 identification is neither the next nor, with DF, the same
	NumBars                  // for arrays of counters
)

var barNames = [NumBars]string{
	BarNone: "none", BarNotTCP: "not_tcp", BarFragment: "fragment", BarSuper: "superframe",
	BarUnverified: "unverified", BarOptions: "ip_options", BarFlags: "tcp_flags", BarEmpty: "no_payload",
	BarFirst: "first", BarFull: "full", BarEnded: "ended", BarHeader: "header", BarSequence: "sequence",
	BarSize: "size", BarID: "ip_id",
}

// String returns the word used as a metric label.
func (b Bar) String() string {
	if b < NumBars {
		return barNames[b]
	}
	return "unknown"
}
