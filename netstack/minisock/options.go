package minisock

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"time"
)

// Admission says when a SYN is answered.
type Admission uint8

// The modes of admission.
const (
	DialAfter Admission = iota // at once; the upstream is dialled when the client is there
	DialFirst                  // when the owner says so, by Answer
)

// String returns the word the config uses.
func (a Admission) String() string {
	switch a {
	case DialAfter:
		return "after"
	case DialFirst:
		return "first"
	}
	return "unknown"
}

// Overflow says what happens to a SYN that finds no room.
type Overflow uint8

// The kinds of overflow.
const (
	OverflowCookies Overflow = iota // answered without a record, also in mode DialFirst
	OverflowDrop                    // dropped: the client tries again
	OverflowReset                   // answered with RST, as Linux's tcp_abort_on_overflow
)

// String returns the word the config uses.
func (o Overflow) String() string {
	switch o {
	case OverflowCookies:
		return "cookies"
	case OverflowDrop:
		return "drop"
	case OverflowReset:
		return "reset"
	}
	return "unknown"
}

// Options configures a Table. The zero value of each field has the meaning that its
// comment gives. Durations are kept in milliseconds.
type Options struct {
	Admission Admission
	Overflow  Overflow
	// AlwaysCookies keeps no half-open records at all (tcp_syncookies = 2). Only
	// for DialAfter.
	AlwaysCookies bool

	// Backlog bounds half-open connections, being dialled or not (Linux's
	// tcp_max_syn_backlog). 0 is 4096.
	Backlog int
	// PerSource and PerDestination bound those of one client (an IPv4 address,
	// an IPv6 /64) and to one destination address. They are kept in hashed
	// counters: never exceeded, and refused too early with a chance that is
	// small while Backlog is full. 0 is half of Backlog for both.
	PerSource      int
	PerDestination int

	// SynAckRetries is how often a SYN-ACK is repeated, after 1, 2, 4 ... s
	// (tcp_synack_retries), as far as HandshakeTimeout lets it. 0 is 3; negative
	// is never.
	SynAckRetries int
	// HandshakeTimeout is how long a SYN-ACK waits for its ACK. 0 is 10 s.
	HandshakeTimeout time.Duration
	// DialTimeout ends a Dialing record that its owner forgot. 0 is 30 s.
	DialTimeout time.Duration
	// DeferAccept is how long a finished handshake may wait for data before an
	// endpoint is made (TCP_DEFER_ACCEPT). 0 is not at all.
	DeferAccept time.Duration
	// CreateTimeout ends a record whose endpoint does not get Ready. 0 is 10 s.
	CreateTimeout time.Duration
	// MaxHeld bounds the packets kept for a flow while its endpoint is made. 0
	// is 64, which is also the most.
	MaxHeld int

	// NoSACK keeps selective acknowledgements from being agreed on (RFC 2018).
	NoSACK bool

	// TimeWait is RFC 9293's, Linux's TCP_TIMEWAIT_LEN. 0 is 60 s.
	TimeWait time.Duration
	// NoTimeWaitReuse keeps a tuple for all of TimeWait, whoever comes (RFC 6191
	// lets a newer SYN have it).
	NoTimeWaitReuse bool
	// Linger is how long a connection that its client closed first is still
	// answered. 0 is 1 s.
	Linger time.Duration
	// FinTimeout is how long an orphan waits in FIN_WAIT_2 (tcp_fin_timeout). 0
	// is 60 s.
	FinTimeout time.Duration
	// OrphanRetries is how often an orphan repeats its FIN, after 1, 2, 4 ... s
	// (tcp_orphan_retries). 0 is 5, which gives up after 63 s; at most 6.
	OrphanRetries int
	// KeepaliveIdle is the silence of a client after which it is probed
	// (tcp_keepalive_time), KeepaliveInterval the time between probes
	// (tcp_keepalive_intvl), and KeepaliveCount how many may stay unanswered
	// (tcp_keepalive_probes). They come up to two seconds late and an eighth of an
	// interval, and later if these are too many at once. 0 is never, 75 s and 9.
	KeepaliveIdle     time.Duration
	KeepaliveInterval time.Duration
	KeepaliveCount    int
	// Unacknowledged is how long a client with an open window may acknowledge
	// nothing of what was sent (RFC 5482). It is for stacks that forget to send
	// again, and longer than those wait that do not; they are nudged before that
	// (Sink.Stalled). 0 is for ever, and without a nudge.
	Unacknowledged time.Duration
	// MaxTimeWait bounds records in TIME_WAIT and lingering (tcp_max_tw_buckets),
	// MaxOrphans orphans (tcp_max_orphans), MaxRecords all. 0 is 262,144, 65,536
	// and 4,194,304.
	MaxTimeWait int
	MaxOrphans  int
	MaxRecords  int

	// ResetRate bounds RSTs a second to segments of no flow, in all; a source
	// has an eighth of it. ChallengeRate bounds the ACKs that RFC 5961 and
	// TIME_WAIT answer with (tcp_challenge_ack_limit). 0 is 1000 for both.
	ResetRate     int
	ChallengeRate int
	// InvalidInterval is the least time between two such answers on one flow,
	// and between two SYN-ACKs for duplicate SYNs (tcp_invalid_ratelimit). 0 is
	// 500 ms; negative is none.
	InvalidInterval time.Duration

	// DelayACKs keeps in ACKs that may go with data a moment later. The owner must
	// call Acknowledge then.
	DelayACKs bool

	// MinMSS is the least segment size that is believed of a client; less is
	// taken for this (tcp_min_snd_mss, and why: CVE-2019-11479). 0 is 536.
	MinMSS int

	// Local is what the stack announces; SetLocal changes it.
	Local Local

	// Shards is how many locks the table has, a power of two up to 1024. 0 is 4
	// for each CPU, at most 256.
	Shards int
}

// Local is what SYN-ACKs announce in the stack's name. It must be what the stack
// itself announces in the SYN of an active open.
type Local struct {
	MSS4        uint16 // over IPv4; 0 is 1460
	MSS6        uint16 // over IPv6; 0 is 1440
	Window      uint16 // 0 is 65535
	WindowScale uint8  // at most 14 (RFC 7323, section 2.3)
}

const (
	maxHeld    = 64
	maxRetries = 6 // 1+2+...+64 s
	maxShards  = 1024
	maxProbes  = 127 // Linux's MAX_TCP_KEEPCNT
)

func (o Options) withDefaults() Options {
	def(&o.Backlog, 4096)
	def(&o.PerSource, (o.Backlog+1)/2)
	def(&o.PerDestination, (o.Backlog+1)/2)
	def(&o.SynAckRetries, 3)
	def(&o.HandshakeTimeout, 10*time.Second)
	def(&o.DialTimeout, 30*time.Second)
	def(&o.CreateTimeout, 10*time.Second)
	def(&o.MaxHeld, maxHeld)
	def(&o.TimeWait, time.Minute)
	def(&o.Linger, time.Second)
	def(&o.FinTimeout, time.Minute)
	def(&o.OrphanRetries, 5)
	def(&o.KeepaliveInterval, 75*time.Second)
	def(&o.KeepaliveCount, 9)
	def(&o.MaxTimeWait, 1<<18)
	def(&o.MaxOrphans, 1<<16)
	def(&o.MaxRecords, 1<<22)
	def(&o.ResetRate, 1000)
	def(&o.ChallengeRate, 1000)
	def(&o.InvalidInterval, 500*time.Millisecond)
	def(&o.MinMSS, 536)
	def(&o.Shards, min(256, 1<<bits.Len(uint(4*runtime.GOMAXPROCS(0)-1))))
	o.Local = o.Local.withDefaults()
	return o
}

func (l Local) withDefaults() Local {
	def(&l.MSS4, 1460)
	def(&l.MSS6, 1440)
	def(&l.Window, 65535)
	return l
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports every fault in o, joined; each begins with the field's name.
func (o *Options) Validate() error {
	var errs []error
	bad := func(ok bool, field string, v any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("minisock: %s: %v is not %s", field, v, want))
		}
	}
	for _, n := range []struct {
		field   string
		v, most int
	}{
		{"Backlog", o.Backlog, 1 << 24},
		{"PerSource", o.PerSource, 1 << 24},
		{"PerDestination", o.PerDestination, 1 << 24},
		{"MaxHeld", o.MaxHeld, maxHeld},
		{"OrphanRetries", o.OrphanRetries, maxRetries},
		{"KeepaliveCount", o.KeepaliveCount, maxProbes},
		{"MaxTimeWait", o.MaxTimeWait, 1 << 28},
		{"MaxOrphans", o.MaxOrphans, 1 << 28},
		{"MaxRecords", o.MaxRecords, 1 << 28},
		{"ResetRate", o.ResetRate, 1e9},
		{"ChallengeRate", o.ChallengeRate, 1e9},
		{"MinMSS", o.MinMSS, 1<<16 - 1},
	} {
		bad(n.v >= 0 && n.v <= n.most, n.field, n.v, fmt.Sprintf("from 0 to %d", n.most))
	}
	for _, d := range []struct {
		field string
		v     time.Duration
	}{
		{"HandshakeTimeout", o.HandshakeTimeout},
		{"DialTimeout", o.DialTimeout},
		{"DeferAccept", o.DeferAccept},
		{"CreateTimeout", o.CreateTimeout},
		{"TimeWait", o.TimeWait},
		{"Linger", o.Linger},
		{"FinTimeout", o.FinTimeout},
	} {
		bad(d.v >= 0 && d.v <= time.Hour, d.field, d.v, "from 0 to 1 h")
	}
	bad(o.KeepaliveIdle >= 0, "KeepaliveIdle", o.KeepaliveIdle, "0 or more")
	bad(o.Unacknowledged >= 0, "Unacknowledged", o.Unacknowledged, "0 or more")
	bad(o.KeepaliveInterval >= 0, "KeepaliveInterval", o.KeepaliveInterval, "0 or more")
	bad(o.SynAckRetries <= maxRetries, "SynAckRetries", o.SynAckRetries, fmt.Sprintf("at most %d", maxRetries))
	bad(o.InvalidInterval <= time.Hour, "InvalidInterval", o.InvalidInterval, "at most 1 h")
	bad(o.Shards >= 0 && o.Shards <= maxShards && o.Shards&(o.Shards-1) == 0, "Shards", o.Shards,
		fmt.Sprintf("a power of two up to %d", maxShards))
	bad(o.Admission <= DialFirst, "Admission", o.Admission, "a mode")
	bad(o.Overflow <= OverflowReset, "Overflow", o.Overflow, "a kind")
	bad(!o.AlwaysCookies || o.Admission == DialAfter, "AlwaysCookies", o.AlwaysCookies, "possible with DialFirst")
	bad(o.Local.WindowScale <= 14, "Local.WindowScale", o.Local.WindowScale, "at most 14")
	return errors.Join(errs...)
}
