package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Options configures the handlers of this package.
type Options struct {
	// Handler is "direct" (host sockets to the flow's destination), "fixed"
	// (host sockets to Target) or "echo" (the program answers). "" is direct.
	Handler string
	// Target is where handler fixed sends every flow.
	Target netip.AddrPort

	// Relay is how TCP connections are served: "reactor" (one event loop for
	// all of them) or "simple" (two goroutines each, with handler echo one;
	// easier to debug). "" is reactor.
	Relay string

	// Mark is SO_MARK of upstream sockets, 0 none (needs CAP_NET_ADMIN).
	Mark uint32
	// Interface is SO_BINDTODEVICE of upstream sockets, "" none.
	Interface string

	// ConnectTimeout bounds one upstream connect; 0 is 10 s.
	ConnectTimeout time.Duration
	// IdleTimeout ends a TCP connection that moved no byte for so long; 0 is
	// 2 h (RFC 5382, REQ-5), negative is never.
	IdleTimeout time.Duration
	// DrainTimeout ends a half-closed connection whose open direction moved no
	// byte for so long; 0 is 5 minutes (RFC 5382's transitory timeout is 4).
	DrainTimeout time.Duration
	// StallTimeout ends a TCP connection one of whose sides took nothing of
	// what waited for it for so long; 0 is 5 minutes, negative is never.
	StallTimeout time.Duration

	// KeepaliveIdle, KeepaliveInterval and KeepaliveCount are the kernel's
	// TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT of upstream connections, in
	// whole seconds. 0 is 60 s, 15 s and 9; a negative KeepaliveIdle turns
	// probes off.
	KeepaliveIdle     time.Duration
	KeepaliveInterval time.Duration
	KeepaliveCount    int

	// Allow opens destination classes that are denied by default.
	Allow []Class
	// Own are addresses of the gateway beside the host's, of class self, too:
	// those that it has on a TAP. A config does not set them.
	Own []netip.Addr

	// Forward maps a destination to another before the policy is asked, for
	// services the gateway itself offers to clients, such as DNS.
	Forward map[netip.AddrPort]netip.AddrPort

	UDP UDPOptions
}

// UDPOptions bound UDP sessions.
type UDPOptions struct {
	// MaxSessions bounds sessions (one upstream socket each); at the bound the
	// longest idle one makes room. 0 is 4096.
	MaxSessions int
	// IdleTimeout ends a session without a datagram either way; 0 is 60 s.
	// RFC 4787 REQ-5 asks for 2 minutes by default and allows less per port.
	IdleTimeout time.Duration
	// DNSTimeout is IdleTimeout for destination port 53; 0 is 10 s.
	DNSTimeout time.Duration
}

// Class is a set of destination addresses that is denied unless allowed.
type Class string

// The destination classes.
const (
	ClassLoopback  Class = "loopback"   // 127.0.0.0/8, ::1, 0.0.0.0/8, ::
	ClassSelf      Class = "self"       // addresses of the gateway's own host
	ClassLinkLocal Class = "link-local" // 169.254.0.0/16, fe80::/10, cloud metadata
	ClassMulticast Class = "multicast"  // 224.0.0.0/4, ff00::/8, broadcast
	ClassEmbedded  Class = "embedded"   // IPv6 forms that carry an IPv4 address
)

// Classes lists every class.
func Classes() []Class {
	return []Class{ClassLoopback, ClassSelf, ClassLinkLocal, ClassMulticast, ClassEmbedded}
}

// UnmarshalText accepts the names of Classes.
func (c *Class) UnmarshalText(b []byte) error {
	for _, k := range Classes() {
		if string(b) == string(k) {
			*c = k
			return nil
		}
	}
	return fmt.Errorf("%q is not one of loopback, self, link-local, multicast, embedded", b)
}

// withDefaults returns o with every zero value replaced.
func (o Options) withDefaults() Options {
	def(&o.Handler, "direct")
	def(&o.Relay, "reactor")
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.IdleTimeout, 2*time.Hour)
	def(&o.DrainTimeout, 5*time.Minute)
	def(&o.StallTimeout, 5*time.Minute)
	def(&o.KeepaliveIdle, time.Minute)
	def(&o.KeepaliveInterval, 15*time.Second)
	def(&o.KeepaliveCount, 9)
	def(&o.UDP.MaxSessions, 4096)
	def(&o.UDP.IdleTimeout, time.Minute)
	def(&o.UDP.DNSTimeout, 10*time.Second)
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
	o.validateHandler(bad)
	if len(o.Interface) > 15 {
		bad("interface", "%q is longer than the kernel's 15 bytes", o.Interface)
	}
	for _, c := range o.Allow {
		if !slices.Contains(Classes(), c) {
			bad("allow", "%q is no destination class", c)
		}
	}
	for from, to := range o.Forward {
		if !dialable(from) || !dialable(to) {
			bad("forward", "%v to %v: both need an address and a port", from, to)
		}
	}
	for _, d := range []struct {
		field string
		v     time.Duration
	}{
		{"connect_timeout", o.ConnectTimeout},
		{"drain_timeout", o.DrainTimeout},
		{"udp.idle_timeout", o.UDP.IdleTimeout},
		{"udp.dns_timeout", o.UDP.DNSTimeout},
	} {
		if d.v < 0 {
			bad(d.field, "%v is negative", d.v)
		}
	}
	o.validateKeepalive(bad)
	if o.UDP.MaxSessions < 0 {
		bad("udp.max_sessions", "%d is negative", o.UDP.MaxSessions)
	}
	return errors.Join(errs...)
}

// The kernel's bounds (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT).
const (
	maxKeepalive      = 32767 * time.Second
	maxKeepaliveCount = 127
)

func (o *Options) validateKeepalive(bad func(field, format string, args ...any)) {
	if o.KeepaliveIdle > maxKeepalive {
		bad("keepalive_idle", "%v is longer than the kernel's %v", o.KeepaliveIdle, maxKeepalive)
	}
	if o.KeepaliveInterval < 0 || o.KeepaliveInterval > maxKeepalive {
		bad("keepalive_interval", "%v is not between 0 and %v", o.KeepaliveInterval, maxKeepalive)
	}
	if o.KeepaliveCount < 0 || o.KeepaliveCount > maxKeepaliveCount {
		bad("keepalive_count", "%d is not between 0 and %d", o.KeepaliveCount, maxKeepaliveCount)
	}
}

func (o *Options) validateHandler(bad func(field, format string, args ...any)) {
	switch o.Handler {
	case "", "direct", "echo":
		if o.Target.IsValid() {
			bad("target", "only handler fixed takes a target")
		}
	case "fixed":
		if !dialable(o.Target) {
			bad("target", "handler fixed needs one, such as 192.0.2.1:80")
		}
	default:
		bad("handler", "%q is not one of direct, fixed, echo", o.Handler)
	}
	switch o.Relay {
	case "", "reactor", "simple":
	default:
		bad("relay", "%q is not one of reactor, simple", o.Relay)
	}
}

// dialable reports whether a names one port of one host.
func dialable(a netip.AddrPort) bool { return a.IsValid() && a.Port() != 0 }
