package minisock

// State is what a record stands for. From Established to LastAck the names are RFC
// 9293's, seen from the gateway, and the connection has an endpoint in the stack
// unless the record is an orphan.
type State uint8

// The states.
const (
	Free        State = iota
	Dialing           // SYN seen, not answered: the owner asks the upstream first
	SynReceived       // SYN-ACK sent
	Creating          // handshake done, the endpoint is being made
	Established
	CloseWait
	FinWait1
	FinWait2
	Closing
	LastAck
	TimeWait // both directions closed, ours first (RFC 9293, section 3.3.2)
	Linger   // closed, the client's first: it is answered a moment longer
	NumStates
)

var stateNames = [NumStates]string{
	Free: "free", Dialing: "dialing", SynReceived: "syn_received", Creating: "creating",
	Established: "established", CloseWait: "close_wait", FinWait1: "fin_wait_1", FinWait2: "fin_wait_2",
	Closing: "closing", LastAck: "last_ack", TimeWait: "time_wait", Linger: "linger",
}

// String returns the metric label.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "unknown"
}

func (s State) halfOpen() bool { return s == Dialing || s == SynReceived }

// connected reports whether the handshake is done and the end not reached.
func (s State) connected() bool { return s >= Established && s <= LastAck }

func (s State) over() bool { return s == TimeWait || s == Linger }

// flags of a record.
type flags uint16

const (
	withTS   flags = 1 << iota // both sides send timestamps
	withSACK                   // the client takes SACK
	withWS                     // both sides scale their windows
	finIn                      // the client's FIN was seen; record.finIn is valid
	finOut                     // our FIN was sent; record.finOut is valid
	active                     // ours did not acknowledge theirs: we owe TIME_WAIT
	synSeen                    // the stack's SYN was swallowed; seqD and tsD hold its numbers
	live                       // seqD and tsD are deltas: the stack's segments pass
	swallow                    // the stack's ACK of the synthetic SYN-ACK is to come
	orphan                     // no endpoint, no owner: the record closes the connection
	deferred                   // handshake done, waits for data (TCP_DEFER_ACCEPT); later: lossy
	undefer                    // it waited long enough
	shares                     // counted in the half-open shares
	served                     // by an endpoint: connected, and no orphan
	owed                       // an ACK waits for data to go with
	prompt                     // such a wait was in vain lately
)

// record is one connection, in 128 bytes without a pointer. What the hot path reads
// to find and translate stands in the first 64, a cache line.
//
// Sequence numbers are those on the wire. The client's pass unchanged; the stack's
// are wire - seqD, and its timestamps wire - tsD. Times are milliseconds of the
// table's clock, seen excepted. gen and owner, one in each cache line, are stored
// atomically, for Prefetch loads them without the lock.
type record struct {
	key   key32
	ports uint32
	gen   uint32 // of this use of the memory
	connection
	owner uint32
}

// connection is what changes in a record's life.
type connection struct {
	state  State
	tries  uint8 // SYN-ACKs, FINs of an orphan, or probes that were sent
	flags  flags
	mss    uint16 // the client's, or less: smaller
	cliWS  uint8  // valid iff withWS
	ourWS  uint8  // 0 without withWS
	queue  uint16 // the flow came by it last, and leaves by it
	timer  timer
	held   uint8  // packets that the caller keeps while Creating
	cliWnd uint16 // as in the client's last header
	ourWnd uint16 // as in ours; in SynReceived as in our SYN-ACK, unscaled
	seqD   uint32
	tsD    uint32

	cliNxt uint32 // end of what the client sent, in the window
	rcvAck uint32 // highest ACK of ours
	sndNxt uint32 // end of what we sent
	sndUna uint32 // highest ACK of the client's
	rcvMax uint32 // highest right edge of the window that we gave
	maxWnd uint32 // largest window that the client gave

	tsRecent uint32 // RFC 7323's TS.Recent
	tsLast   uint32 // our last TSval
	finIn    uint32 // behind the client's FIN
	finOut   uint32 // behind ours

	deadline   uint32 // the three are keepalive's while there is no timer: keepalive.go
	prev, next uint32 // in the timer's list: number + 1, 0 is none
	answered   uint32 // when an answer was last given that others can provoke
	seen       uint32 // epochs, when the client's last segment came
}

// key32 is a key without the ports, for a record has room for no padding.
type key32 [4]uint64

func (r *record) is(k *key) bool {
	return r.key[1] == k.aLo && r.ports == k.ports && r.key[3] == k.bLo && r.key[0] == k.aHi && r.key[2] == k.bHi
}

func (r *record) flow() key {
	return key{r.key[0], r.key[1], r.key[2], r.key[3], r.ports}
}

func (r *record) has(f flags) bool { return r.flags&f == f }

// hasEndpoint reports whether segments are the stack's to serve.
func (r *record) hasEndpoint() bool { return r.flags&served != 0 }

// before compares sequence numbers, and timestamps, modulo 2^32.
func before(a, b uint32) bool { return int32(a-b) < 0 } //nolint:gosec // RFC 9293, section 3.4: serial arithmetic

// window is what the client's last header allows, in bytes.
func (r *record) window() uint32 {
	if r.flags&withWS != 0 {
		return uint32(r.cliWnd) << r.cliWS
	}
	return uint32(r.cliWnd)
}
