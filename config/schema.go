package config

import (
	"fmt"
	"math"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/tungate/tungate/admin"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

// field is one row of the table.
type field struct {
	path  string
	value value
	unset string // what leaving it out means
	doc   string // one or two sentences, for docs/config.md
}

// fields is the table: every field a file may set, in the order of the file, each
// bound to its place in c. A row per field of the Options is asked for by a test.
func fields(c *Config) []field {
	var all []field
	for _, part := range [][]field{
		deviceFields(&c.Device), stackFields(&c.Stack), proxyFields(&c.Proxy), adminFields(&c.Admin), logFields(&c.Log),
	} {
		all = append(all, part...)
	}
	return append(all, field{
		"shutdown_timeout", duration(&c.ShutdownTimeout), short(DefaultShutdownTimeout),
		"How long connections may finish after SIGTERM; those still open then are reset.",
	})
}

func deviceFields(o *tundev.Options) []field {
	return []field{
		{
			"device.name", text(&o.Name, "an interface name of up to 15 letters, such as tun0 or tun%d", deviceName), "tun%d",
			"Name of the interface that is made. The kernel puts the first free number in place of %d.",
		},
		{
			"device.attach", boolean(&o.Attach), "false",
			"Take the persistent TUN device of that name (ip tuntap add) instead of making one. Needs no privilege if it belongs to this user; it stays when the gateway ends.",
		},
		{
			"device.netns", text(&o.NetNS, "a path, a pid or a name that ip netns list shows", anyText), "the gateway's",
			"Network namespace the device is in. Upstream sockets stay in the gateway's own.",
		},
		{
			"device.mtu", number(&o.MTU, tundev.MinMTU, tundev.MaxMTU, "bytes"), fmt.Sprint(tundev.DefaultMTU),
			fmt.Sprintf("Largest IP packet on the device. IPv6 needs %d.", tundev.MinMTUv6),
		},
		{
			"device.addresses", &list[prefix]{&o.Addresses, addressRule()}, "none",
			"Addresses the interface gets. The network of each becomes reachable through the device.",
		},
		{
			"device.routes", &list[prefix]{&o.Routes, networkRule()}, "none",
			"Networks that are routed into the device, in the main table.",
		},
		{
			"device.offload.checksum", oneOf(&o.Offload.Checksum, tundev.Auto, tundev.On, tundev.Off), tundev.Auto.String(),
			"Leave checksums to the kernel, which mostly need not compute them. auto: where the kernel offers it; on: refuse to start without.",
		},
		{
			"device.offload.tso", oneOf(&o.Offload.TSO, tundev.Auto, tundev.On, tundev.Off), tundev.Auto.String(),
			"Pass TCP through the device in superframes of up to 64 KiB. Needs device.offload.checksum.",
		},
	}
}

func stackFields(o *netstack.Options) []field {
	tcp := &o.TCP
	return []field{
		{
			"stack.max_half_open", number(&o.MaxHalfOpen, 1, math.MaxInt32, ""), fmt.Sprint(netstack.DefaultMaxHalfOpen),
			"Connection attempts that may wait for the upstream or for the client at once. A SYN past it is dropped; the client tries again.",
		},
		{
			"stack.max_connections", number(&o.MaxConnections, 1, math.MaxInt32, ""), fmt.Sprint(netstack.DefaultMaxConnections),
			"Established connections at once. A SYN past it is reset.",
		},
		{
			"stack.sources", &list[prefix]{&o.Sources, networkRule()}, "every unicast source",
			"Networks that packets from the device may come from; others are dropped.",
		},
		{
			"stack.tcp.congestion_control", text(&tcp.CongestionControl, "cubic or reno", anyText), "cubic",
			"Congestion control towards clients: cubic (RFC 9438) or reno (RFC 5681).",
		},
		{
			"stack.tcp.keepalive_idle", durationOrOff(&tcp.KeepaliveIdle), "1m",
			"Silence of a client after which it is probed. off: never.",
		},
		{
			"stack.tcp.keepalive_interval", duration(&tcp.KeepaliveInterval), "15s",
			"Time between probes.",
		},
		{
			"stack.tcp.keepalive_count", number(&tcp.KeepaliveCount, 1, maxKeepaliveCount, ""), "9",
			"Probes without an answer that end the connection.",
		},
		{
			"stack.tcp.user_timeout", duration(&tcp.UserTimeout), "2m",
			"How long sent bytes may stay unacknowledged by the client before the connection is reset (RFC 5482).",
		},
		{
			"stack.tcp.receive_buffer", size(&tcp.ReceiveBuffer, minBuffer, maxBuffer), "4MiB",
			"The most a connection may hold of what the client sent and the upstream has not taken.",
		},
		{
			"stack.tcp.send_buffer", size(&tcp.SendBuffer, minBuffer, maxBuffer), "4MiB",
			"The most a connection may hold of what the upstream sent and the client has not acknowledged.",
		},
	}
}

func proxyFields(o *proxy.Options) []field {
	return append([]field{
		{
			"proxy.handler", text(&o.Handler, "direct, fixed or echo", anyText), "direct",
			"What serves connections. direct: a host socket to where the client wanted to go; fixed: a host socket to proxy.target; echo: the gateway itself answers every byte.",
		},
		{
			"proxy.target", &scalar[addrPort]{&o.Target, upstreamRule()}, "none",
			"Where handler fixed sends every connection and datagram, even where proxy.allow does not name it.",
		},
		{
			"proxy.relay", text(&o.Relay, "reactor or simple", anyText), "reactor",
			"How TCP connections are served. reactor: one event loop for all of them, no goroutine each; simple: two goroutines each (one with handler echo), easier to debug.",
		},
		{
			"proxy.mark", number(&o.Mark, 0, math.MaxUint32, ""), "0, no mark",
			"Mark of upstream sockets (SO_MARK), by which routing rules keep them off the device. Needs CAP_NET_ADMIN.",
		},
		{
			"proxy.interface", text(&o.Interface, "the name of an interface, such as eth0", hostInterface), "none",
			"Interface upstream sockets are bound to (SO_BINDTODEVICE).",
		},
		{
			"proxy.connect_timeout", duration(&o.ConnectTimeout), "10s",
			"How long one upstream connect may take.",
		},
		{
			"proxy.idle_timeout", durationOrOff(&o.IdleTimeout), "2h",
			"Silence in both directions after which a TCP connection ends (RFC 5382). off: never.",
		},
		{
			"proxy.drain_timeout", duration(&o.DrainTimeout), "5m",
			"Silence after which a TCP connection ends that one side has closed already.",
		},
		{
			"proxy.stall_timeout", durationOrOff(&o.StallTimeout), "5m",
			"How long one side of a TCP connection may take nothing of what waits for it, whatever the other side does, before the connection is reset. off: for ever.",
		},
		{
			"proxy.keepalive_idle", durationOrOff(&o.KeepaliveIdle), "1m",
			"Silence of an upstream after which the kernel probes it (TCP_KEEPIDLE). off: never. stack.tcp.keepalive_idle is the same for clients.",
		},
		{
			"proxy.keepalive_interval", duration(&o.KeepaliveInterval), "15s",
			"Time between probes of an upstream.",
		},
		{
			"proxy.keepalive_count", number(&o.KeepaliveCount, 1, maxKeepaliveCount, ""), "9",
			"Probes of an upstream without an answer that end the connection.",
		},
		{
			"proxy.allow", &list[proxy.Class]{&o.Allow, classRule()}, "none",
			"Destinations that are refused otherwise. loopback: the host's own loopback; self: its other addresses; link-local: the link and cloud metadata services; multicast; embedded: IPv6 forms of an IPv4 address.",
		},
		{
			"proxy.forward", &mapping[addrPort, addrPort]{&o.Forward, destinationRule(), upstreamRule()}, "none",
			"Destinations that are replaced by another, such as the address of a DNS server for clients. What they are replaced by is reached even where proxy.allow does not name it.",
		},
	}, udpFields(&o.UDP)...)
}

func udpFields(o *proxy.UDPOptions) []field {
	return []field{
		{
			"proxy.udp.max_sessions", number(&o.MaxSessions, 1, math.MaxInt32, ""), "4096",
			"UDP sessions at once, each with an upstream socket. At the bound the longest idle one makes room.",
		},
		{
			"proxy.udp.idle_timeout", duration(&o.IdleTimeout), "1m",
			"Silence in both directions after which a session ends (RFC 4787).",
		},
		{
			"proxy.udp.dns_timeout", duration(&o.DNSTimeout), "10s",
			"The same for sessions to port 53.",
		},
	}
}

func adminFields(o *admin.Options) []field {
	return []field{
		{
			"admin.listen", text(&o.Listen, "an address and port, unix: and a path, or off", anyText), admin.DefaultListen,
			"Where metrics and health are served: an address and port, unix: and an absolute path for a socket only its owner may use, or off. Whoever reaches it can read it.",
		},
		{
			"admin.pprof", boolean(&o.PProf), "false",
			"Serve Go's profiles at /debug/pprof/. Taking one costs CPU.",
		},
	}
}

func logFields(o *LogOptions) []field {
	return []field{
		{
			"log.level", oneOf(&o.Level, zapcore.DebugLevel, zapcore.InfoLevel, zapcore.WarnLevel, zapcore.ErrorLevel), zapcore.InfoLevel.String(),
			"Least important message that is logged.",
		},
		{
			"log.format", oneOf(&o.Format, FormatAuto, FormatJSON, FormatConsole), FormatAuto.String(),
			"How a message looks. auto: console on a terminal, else json.",
		},
	}
}

// classRule takes the name of a destination class.
func classRule() rule[proxy.Class] {
	return oneOfRule(func(c proxy.Class) string { return string(c) }, proxy.Classes()...)
}

// Bounds that the packages' Validate hold unexported; a test compares them.
const (
	minBuffer         = 4 << 10
	maxBuffer         = 64 << 20
	maxKeepaliveCount = 127
)

// schema is the table as a tree.
type schema struct {
	root *section
	rows []field
}

// section is a block of fields.
type section struct {
	schema   *schema
	path     string
	names    []string // of children, in order
	children map[string]child
}

// child is a section or a field; one of the two is nil.
type child struct {
	section *section
	field   *field
}

func newSchema(c *Config) *schema {
	s := &schema{rows: fields(c)}
	s.root = s.newSection("")
	for i := range s.rows {
		f := &s.rows[i]
		parent, names := s.root, strings.Split(f.path, ".")
		last := len(names) - 1
		for _, name := range names[:last] {
			parent = parent.subsection(name)
		}
		parent.put(names[last], child{field: f})
	}
	return s
}

func (s *schema) newSection(path string) *section {
	return &section{schema: s, path: path, children: map[string]child{}}
}

func (s *section) put(name string, c child) {
	s.names = append(s.names, name)
	s.children[name] = c
}

func (s *section) subsection(name string) *section {
	if c, ok := s.children[name]; ok {
		return c.section
	}
	sub := s.schema.newSection(joinPath(s.path, name))
	s.put(name, child{section: sub})
	return sub
}
