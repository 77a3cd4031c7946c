package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tungate/tungate/netstack/minisock"
)

// Options configures a Stack. The zero value of each field has the meaning its
// comment gives; Validate rejects what has none.
type Options struct {
	// MaxHalfOpen bounds the connection attempts that are being dialled or
	// whose handshake is unfinished (Linux's tcp_max_syn_backlog). 0 is 4096.
	MaxHalfOpen int

	// PerSource and PerDestination bound those of one client (an IPv4 address, an
	// IPv6 /64) and to one address. 0 is half of MaxHalfOpen for both.
	MaxHalfOpenPerSource      int
	MaxHalfOpenPerDestination int

	// Overflow says what a SYN past these bounds gets: a cookie, nothing or a RST.
	Overflow Overflow

	// Dial says whether the upstream is dialled before the client's SYN is
	// answered, so that the client sees a refusal as one, or after.
	Dial Dial

	// MaxConnections bounds established connections. A SYN past it is reset
	// and counted. 0 is 1,000,000.
	MaxConnections int

	// Sources are the prefixes a packet from the device may come from; others
	// are dropped as martians. Empty admits every unicast source.
	Sources []netip.Prefix

	// PinReaders keeps the goroutine that reads queue n of the device on
	// processor n, counted round. With a loop, which reads them all, it is for
	// whoever runs that.
	PinReaders bool

	// TCP holds the connections' own settings, Handshake those of connections
	// without an endpoint.
	TCP       TCPOptions
	Handshake HandshakeOptions
}

// Overflow is what a SYN gets that finds no room.
type Overflow = minisock.Overflow

// The kinds of overflow.
const (
	OverflowCookies = minisock.OverflowCookies // a SYN-ACK, and no record (RFC 4987, section 3.6)
	OverflowDrop    = minisock.OverflowDrop
	OverflowReset   = minisock.OverflowReset
)

// Dial is when the upstream is dialled.
type Dial uint8

// The orders of dialling and answering.
const (
	DialFirst Dial = iota
	DialAfter
)

// String returns the word the config uses.
func (d Dial) String() string {
	switch d {
	case DialFirst:
		return "first"
	case DialAfter:
		return "after"
	}
	return "unknown"
}

// HandshakeOptions are settings of connections that have no endpoint: before the
// handshake is done, and when both sides have closed.
type HandshakeOptions struct {
	// SynAckRetries is how often a SYN-ACK is repeated, after 1, 2, 4 ... s
	// (tcp_synack_retries), within Timeout. 0 is 3, negative never.
	SynAckRetries int
	// Timeout is how long a SYN-ACK waits for its ACK. 0 is 10 s.
	Timeout time.Duration
	// DialTimeout ends an attempt whose handler forgot it; it must be longer than
	// a handler takes. 0 is 30 s.
	DialTimeout time.Duration
	// DeferAccept is how long a finished handshake may wait for data before an
	// endpoint is made (TCP_DEFER_ACCEPT). 0 is not at all.
	DeferAccept time.Duration
	// MinMSS is the least segment size that is believed of a client
	// (tcp_min_snd_mss). 0 is 536.
	MinMSS int
	// TimeWait is how long a connection that was closed here first is answered
	// (RFC 9293, section 3.6.1). 0 is 60 s.
	TimeWait time.Duration
	// NoTimeWaitReuse keeps a tuple for all of TimeWait, instead of letting a SYN
	// that is newer have it (RFC 6191).
	NoTimeWaitReuse bool
	// FinTimeout is how long a closed connection waits for its client to close
	// (tcp_fin_timeout). 0 is 60 s.
	FinTimeout time.Duration
	// OrphanRetries is how often our FIN is repeated for nobody
	// (tcp_orphan_retries). 0 is 5.
	OrphanRetries int
	// MaxTimeWait and MaxOrphans bound the records of the two
	// (tcp_max_tw_buckets, tcp_max_orphans). 0 is 262,144 and 65,536.
	MaxTimeWait int
	MaxOrphans  int
	// ResetRate bounds RSTs a second to segments of no connection, ChallengeRate
	// the ACKs of RFC 5961 (tcp_challenge_ack_limit). 0 is 1000 for both.
	ResetRate     int
	ChallengeRate int
}

// TCPOptions are settings of the TCP connections with clients.
type TCPOptions struct {
	// CongestionControl is "cubic" (RFC 9438) or "reno" (RFC 5681); "" is cubic.
	CongestionControl string
	// MSS is the largest segment offered to clients and sent to them, in bytes
	// of payload (RFC 9293, section 3.7.1), if the device's MTU allows as much.
	// 0 is what the MTU allows. IPv6 goes no lower than 1220, which fits its
	// smallest MTU.
	MSS int
	// KeepaliveIdle, KeepaliveInterval and KeepaliveCount are Linux's
	// tcp_keepalive_time, _intvl and _probes towards the client (RFC 1122,
	// section 4.2.3.6), who is then reset. 0 is 10 minutes, 75 s and 9: a million
	// idle clients are 1,700 probes a second then. There are 40,000 at most,
	// however short these are. A negative KeepaliveIdle turns them off.
	KeepaliveIdle     time.Duration
	KeepaliveInterval time.Duration
	KeepaliveCount    int
	// UserTimeout ends a connection whose sent bytes stay unacknowledged this
	// long (RFC 5482, Linux's TCP_USER_TIMEOUT). 0 is 2 minutes.
	UserTimeout time.Duration
	// ReceiveBuffer and SendBuffer are the largest a connection's buffers may
	// grow, in bytes, as the last value of Linux's tcp_rmem and tcp_wmem. 0 is
	// 4 MiB.
	ReceiveBuffer int
	SendBuffer    int
	// FirstReceiveBuffer and FirstSendBuffer are what they begin with, the middle
	// values there. Half of the first is the window that a handshake announces, or
	// 20 segments if that is less. 0 is 64 KiB and 32 KiB.
	FirstReceiveBuffer int
	FirstSendBuffer    int
	// NoSACK turns selective acknowledgements off (RFC 2018, Linux's tcp_sack).
	NoSACK bool
	// BufferBudget bounds by how much the buffers of all connections may have
	// grown, in bytes, as Linux's tcp_mem. 0 is without bound.
	BufferBudget int64
}

// Defaults and bounds of Options.
const (
	DefaultMaxHalfOpen    = 4096
	DefaultMaxConnections = 1_000_000
	minBuffer             = 4 << 10 // gVisor's tcp.MinBufferSize
	maxBuffer             = 64 << 20
	minMSS                = 536 // RFC 9293, section 3.7.1
	maxMSS                = 65495
	defaultTimeWait       = 1 << 18 // minisock's
	defaultOrphans        = 1 << 16
)

// withDefaults returns o with every zero value replaced.
func (o Options) withDefaults() Options {
	def(&o.MaxHalfOpen, DefaultMaxHalfOpen)
	def(&o.MaxConnections, DefaultMaxConnections)
	t := &o.TCP
	def(&t.CongestionControl, "cubic")
	def(&t.KeepaliveIdle, 10*time.Minute)
	def(&t.KeepaliveInterval, 75*time.Second)
	def(&t.KeepaliveCount, 9)
	def(&t.UserTimeout, 2*time.Minute)
	def(&t.ReceiveBuffer, 4<<20)
	def(&t.SendBuffer, 4<<20)
	def(&t.FirstReceiveBuffer, 64<<10)
	def(&t.FirstSendBuffer, 32<<10)
	t.FirstReceiveBuffer = min(t.FirstReceiveBuffer, t.ReceiveBuffer)
	t.FirstSendBuffer = min(t.FirstSendBuffer, t.SendBuffer)
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports every fault in o, joined; each begins with the field's path.
func (o *Options) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if o.MaxHalfOpen < 0 {
		bad("max_half_open", "%d is negative", o.MaxHalfOpen)
	}
	if o.MaxConnections < 0 {
		bad("max_connections", "%d is negative", o.MaxConnections)
	}
	if o.Dial > DialAfter {
		bad("dial", "%d is not one of first, after", o.Dial)
	}
	o.TCP.validate(bad)
	flows := o.flows()
	errs = append(errs, flows.Validate())
	return errors.Join(errs...)
}

// validate reports every fault in o to bad.
func (o *TCPOptions) validate(bad func(field, format string, args ...any)) {
	switch o.CongestionControl {
	case "", "cubic", "reno":
	default:
		bad("tcp.congestion_control", "%q is not one of cubic, reno", o.CongestionControl)
	}
	if m := o.MSS; m != 0 && (m < minMSS || m > maxMSS) {
		bad("tcp.mss", "%d is not between %d and %d bytes", m, minMSS, maxMSS)
	}
	if o.KeepaliveInterval < 0 {
		bad("tcp.keepalive_interval", "%v is negative", o.KeepaliveInterval)
	}
	if o.KeepaliveCount < 0 || o.KeepaliveCount > 127 {
		bad("tcp.keepalive_count", "%d is not between 0 and 127", o.KeepaliveCount)
	}
	if o.UserTimeout < 0 {
		bad("tcp.user_timeout", "%v is negative", o.UserTimeout)
	}
	if o.BufferBudget < 0 {
		bad("tcp.buffer_budget", "%d is negative", o.BufferBudget)
	}
	for _, b := range []struct {
		name string
		v    int
	}{
		{"tcp.receive_buffer", o.ReceiveBuffer},
		{"tcp.send_buffer", o.SendBuffer},
		{"tcp.first_receive_buffer", o.FirstReceiveBuffer},
		{"tcp.first_send_buffer", o.FirstSendBuffer},
	} {
		if b.v != 0 && (b.v < minBuffer || b.v > maxBuffer) {
			bad(b.name, "%d is not between %d and %d bytes", b.v, minBuffer, maxBuffer)
		}
	}
}

// flows are the options of the table of flows.
func (o *Options) flows() minisock.Options {
	h := &o.Handshake
	m := minisock.Options{
		Admission: minisock.DialFirst, Overflow: o.Overflow, Backlog: o.MaxHalfOpen,
		PerSource: o.MaxHalfOpenPerSource, PerDestination: o.MaxHalfOpenPerDestination,
		SynAckRetries: h.SynAckRetries, HandshakeTimeout: h.Timeout, DialTimeout: h.DialTimeout, DeferAccept: h.DeferAccept,
		MinMSS: h.MinMSS, NoSACK: o.TCP.NoSACK, TimeWait: h.TimeWait, NoTimeWaitReuse: h.NoTimeWaitReuse, FinTimeout: h.FinTimeout, OrphanRetries: h.OrphanRetries,
		MaxTimeWait: h.MaxTimeWait, MaxOrphans: h.MaxOrphans,
		ResetRate: h.ResetRate, ChallengeRate: h.ChallengeRate,
	}
	d := o.withDefaults()
	m.Unacknowledged = d.TCP.UserTimeout * 5 / 4 // gVisor sees to it first
	m.KeepaliveIdle, m.KeepaliveInterval, m.KeepaliveCount = max(0, d.TCP.KeepaliveIdle), max(0, d.TCP.KeepaliveInterval), d.TCP.KeepaliveCount
	if o.Dial == DialAfter {
		m.Admission = minisock.DialAfter
	}
	m.MaxRecords = d.MaxConnections + d.MaxHalfOpen + max(h.MaxTimeWait, defaultTimeWait) + max(h.MaxOrphans, defaultOrphans)
	return m
}
