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
	// whose handshake is unfinished. A SYN past it is dropped and counted.
	// 0 is 4096.
	MaxHalfOpen int

	// MaxConnections bounds established connections. A SYN past it is reset
	// and counted. 0 is 1,000,000.
	MaxConnections int

	// Sources are the prefixes a packet from the device may come from; others
	// are dropped as martians. Empty admits every unicast source.
	Sources []netip.Prefix

	// PinReaders keeps whoever reads queue n of the device on processor n,
	// counted round.
	PinReaders bool

	// TCP holds the connections' own settings.
	TCP TCPOptions
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
	// section 4.2.3.6). 0 is 60 s, 15 s and 9; a negative KeepaliveIdle turns
	// probes off.
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
}

// Defaults and bounds of Options.
const (
	DefaultMaxHalfOpen    = 4096
	DefaultMaxConnections = 1_000_000
	minBuffer             = 4 << 10 // gVisor's tcp.MinBufferSize
	maxBuffer             = 64 << 20
	minMSS                = 536 // RFC 9293, section 3.7.1
	maxMSS                = 65495
)

// withDefaults returns o with every zero value replaced.
func (o Options) withDefaults() Options {
	def(&o.MaxHalfOpen, DefaultMaxHalfOpen)
	def(&o.MaxConnections, DefaultMaxConnections)
	t := &o.TCP
	def(&t.CongestionControl, "cubic")
	def(&t.KeepaliveIdle, 60*time.Second)
	def(&t.KeepaliveInterval, 15*time.Second)
	def(&t.KeepaliveCount, 9)
	def(&t.UserTimeout, 2*time.Minute)
	def(&t.ReceiveBuffer, 4<<20)
	def(&t.SendBuffer, 4<<20)
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
	o.TCP.validate(bad)
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
	for _, b := range []struct {
		name string
		v    int
	}{{"tcp.receive_buffer", o.ReceiveBuffer}, {"tcp.send_buffer", o.SendBuffer}} {
		if b.v != 0 && (b.v < minBuffer || b.v > maxBuffer) {
			bad(b.name, "%d is not between %d and %d bytes", b.v, minBuffer, maxBuffer)
		}
	}
}

// flows are the options of the table of flows.
func (o *Options) flows() minisock.Options {
	return minisock.Options{
		Admission:  minisock.DialFirst,
		Backlog:    o.MaxHalfOpen,
		MaxRecords: 4*o.MaxConnections + o.MaxHalfOpen,
	}
}
