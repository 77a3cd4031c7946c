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
		deviceFields(&c.Device), lanFields(&c.LAN), stackFields(&c.Stack), proxyFields(&c.Proxy), adminFields(&c.Admin), logFields(&c.Log),
	} {
		all = append(all, part...)
	}
	return append(all, field{
		"shutdown_timeout", duration(&c.ShutdownTimeout), short(DefaultShutdownTimeout),
		"How long connections may finish after SIGTERM; those still open then are reset.",
	}, field{
		"memory_limit", size(&c.MemoryLimit, minMemory, maxMemory), "the control group's, if it has one",
		"Memory the gateway may use. At nine tenths of it new connections are reset, until less than 85 % are used again; after a second those too that have been idle for longest, a hundredth of all each second. Go's own limit follows from it (GOMEMLIMIT).",
	})
}

func deviceFields(o *tundev.Options) []field {
	return []field{
		{
			"device.name", text(&o.Name, "an interface name of up to 15 letters, such as tun0 or tun%d", deviceName), "tun%d",
			"Name of the interface that is made. The kernel puts the first free number in place of %d.",
		},
		{
			"device.kind", oneOf(&o.Kind, tundev.TUN, tundev.TAP), tundev.TUN.String(),
			"What the device carries. tun: IP packets; tap: Ethernet frames, for guests with a network card.",
		},
		{
			"device.attach", boolean(&o.Attach), "false",
			"Take the persistent device of that name (ip tuntap add) instead of making one. Needs no privilege if it belongs to this user; it stays when the gateway ends.",
		},
		{
			"device.netns", text(&o.NetNS, "a path, a pid or a name that ip netns list shows", anyText), "the gateway's",
			"Network namespace the device is in. Upstream sockets stay in the gateway's own.",
		},
		{
			"device.create_netns", boolean(&o.CreateNetNS), "false",
			"Make that namespace if it is a name that is not there yet. It stays when the gateway ends.",
		},
		{
			"device.fds", &list[int]{&o.FDs, numberRule[int](3, math.MaxInt32, "")}, "none",
			"Inherited descriptors of a device that somebody else made, one a queue. Nothing is made or configured then but the offloads.",
		},
		{
			"device.socket", text(&o.Socket, "a path of at most 107 bytes", anyText), "none",
			"Unix socket on which to wait for such descriptors: one message with all of them (SCM_RIGHTS). Only this user and root may send.",
		},
		{
			"device.queues", number(&o.Queues, 0, tundev.MaxQueues, ""), "0, one for each processor",
			"Queues of the device. A connection stays on the one it came in by.",
		},
		{
			"device.on_delete", oneOf(&o.OnDelete, tundev.Exit, tundev.Recreate), tundev.Exit.String(),
			"What to do when somebody deletes the device. exit: end with an error; recreate: make it, or attach to it, again, connections surviving.",
		},
		{
			"device.mtu", number(&o.MTU, tundev.MinMTU, tundev.MaxMTU, "bytes"), fmt.Sprintf("%d, or an existing device's own", tundev.DefaultMTU),
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
		offloadField("vnet_hdr", &o.Offload.VnetHdr, "The header before each frame that the other offloads need. off: for kernels and programs that get it wrong."),
		offloadField("checksum", &o.Offload.Checksum, "Leave checksums to the kernel, which mostly need not compute them. auto: where the kernel offers it; on: refuse to start without. Needs vnet_hdr."),
		offloadField("tso4", &o.Offload.TSO4, "Pass TCP over IPv4 through the device in superframes of up to 64 KiB. Needs checksum."),
		offloadField("tso6", &o.Offload.TSO6, "The same over IPv6."),
		offloadField("ecn", &o.Offload.ECN, "Take superframes with congestion marks whole, too. Needs tso4 or tso6."),
		offloadField("uso", &o.Offload.USO, "Take UDP from the device in superframes, which are split before the stack. Needs checksum, and Linux 6.2."),
	}
}

func offloadField(name string, m *tundev.Mode, doc string) field {
	return field{"device.offload." + name, oneOf(m, tundev.Auto, tundev.On, tundev.Off), tundev.Auto.String(), doc}
}

func stackFields(o *netstack.Options) []field {
	return append([]field{
		{
			"stack.max_half_open", number(&o.MaxHalfOpen, 1, math.MaxInt32, ""), fmt.Sprint(netstack.DefaultMaxHalfOpen),
			"Connection attempts that may wait for the upstream or for the client at once (Linux: tcp_max_syn_backlog).",
		},
		{
			"stack.max_half_open_per_source", number(&o.MaxHalfOpenPerSource, 1, math.MaxInt32, ""), "half of max_half_open",
			"Those of one client: an IPv4 address, an IPv6 network of 64 bits.",
		},
		{
			"stack.max_half_open_per_destination", number(&o.MaxHalfOpenPerDestination, 1, math.MaxInt32, ""), "half of max_half_open",
			"Those to one address, so that dead hosts leave room for live ones.",
		},
		{
			"stack.overflow", oneOf(&o.Overflow, netstack.OverflowCookies, netstack.OverflowDrop, netstack.OverflowReset), netstack.OverflowCookies.String(),
			"What a SYN past these bounds gets. cookies: an answer that keeps nothing here (RFC 4987; Linux: tcp_syncookies); drop: nothing, so that the client tries again; reset: RST (Linux: tcp_abort_on_overflow).",
		},
		{
			"stack.dial", oneOf(&o.Dial, netstack.DialFirst, netstack.DialAfter), netstack.DialFirst.String(),
			"When the upstream is dialled. first: before the client's SYN is answered, so that a refusal looks like one; after: when the client has finished its handshake.",
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
			"stack.pin_readers", boolean(&o.PinReaders), "false",
			"Keep what reads the device on a processor of its own: the event loop, which reads every queue, on the first; with proxy.relay simple the reader of each queue on another, counted round.",
		},
	}, append(tcpFields(&o.TCP), handshakeFields(&o.Handshake)...)...)
}

func tcpFields(tcp *netstack.TCPOptions) []field {
	return []field{
		{
			"stack.tcp.mss", number(&tcp.MSS, minMSS, maxMSS, "bytes"), "what the device's MTU allows",
			"Largest segment offered to clients and sent to them, without headers, for paths that carry less than the device. IPv6 goes no lower than 1220.",
		},
		{
			"stack.tcp.congestion_control", text(&tcp.CongestionControl, "cubic or reno", anyText), "cubic",
			"Congestion control towards clients: cubic (RFC 9438) or reno (RFC 5681).",
		},
		{
			"stack.tcp.sack", unless(&tcp.NoSACK), "true",
			"Selective acknowledgements (RFC 2018), both ways, with clients that can (Linux: tcp_sack).",
		},
		{
			"stack.tcp.keepalive_idle", durationOrOff(&tcp.KeepaliveIdle), "10m",
			"Silence of a client after which it is probed. off: never. There are 40,000 probes a second at most, however many clients are silent.",
		},
		{
			"stack.tcp.keepalive_interval", duration(&tcp.KeepaliveInterval), "1m15s",
			"Time between probes, and after the last one.",
		},
		{
			"stack.tcp.keepalive_count", number(&tcp.KeepaliveCount, 1, maxKeepaliveCount, ""), "9",
			"Probes without an answer that end the connection: the client gets a RST.",
		},
		{
			"stack.tcp.user_timeout", duration(&tcp.UserTimeout), "2m",
			"How long sent bytes may stay unacknowledged by the client before the connection is reset (RFC 5482).",
		},
		{
			"stack.tcp.receive_buffer", size(&tcp.ReceiveBuffer, minBuffer, maxBuffer), "4MiB",
			"The most a connection may hold of what the client sent and the upstream has not taken (Linux: tcp_rmem, the last one).",
		},
		{
			"stack.tcp.send_buffer", size(&tcp.SendBuffer, minBuffer, maxBuffer), "4MiB",
			"The most a connection may hold of what the upstream sent and the client has not acknowledged (Linux: tcp_wmem, the last one).",
		},
		{
			"stack.tcp.first_receive_buffer", size(&tcp.FirstReceiveBuffer, minBuffer, maxBuffer), "64KiB",
			"What receive_buffer begins with; half of it is the first window, or 20 segments if that is less (Linux: tcp_rmem, the middle one).",
		},
		{
			"stack.tcp.first_send_buffer", size(&tcp.FirstSendBuffer, minBuffer, maxBuffer), "32KiB",
			"What send_buffer begins with (Linux: tcp_wmem, the middle one).",
		},
		{
			"stack.tcp.buffer_budget", size(&tcp.BufferBudget, minBudget, maxMemory), "a quarter of memory_limit, or of the machine's memory",
			"By how much the buffers of all connections may have grown since they began. Past it they stay as they are (Linux: tcp_mem).",
		},
	}
}

func handshakeFields(o *netstack.HandshakeOptions) []field {
	const none = -1
	return []field{
		{
			"stack.handshake.synack_retries", number(&o.SynAckRetries, none, 6, ""), "3",
			"How often a SYN-ACK is repeated, after 1, 2, 4 seconds and so on, within timeout. -1: never (Linux: tcp_synack_retries).",
		},
		{
			"stack.handshake.timeout", duration(&o.Timeout), "10s",
			"How long a SYN-ACK waits for its acknowledgement.",
		},
		{
			"stack.handshake.defer_accept", duration(&o.DeferAccept), "not at all",
			"How long a finished handshake may wait for data before the connection counts (Linux: TCP_DEFER_ACCEPT).",
		},
		{
			"stack.handshake.min_mss", number(&o.MinMSS, 48, maxMSS, "bytes"), "536",
			"Least segment size believed of a client, which could make us send many small packets otherwise (Linux: tcp_min_snd_mss).",
		},
		{
			"stack.handshake.time_wait", duration(&o.TimeWait), "1m",
			"How long a connection that was closed here first is still answered (RFC 9293).",
		},
		{
			"stack.handshake.reuse_time_wait", unless(&o.NoTimeWaitReuse), "true",
			"Let a SYN that is newer than a connection in time_wait take its place at once (RFC 6191). false: its client waits (Linux: tcp_tw_reuse, for the other side).",
		},
		{
			"stack.handshake.fin_timeout", duration(&o.FinTimeout), "1m",
			"How long a connection that is closed here waits for its client to close (Linux: tcp_fin_timeout).",
		},
		{
			"stack.handshake.orphan_retries", number(&o.OrphanRetries, 1, 6, ""), "5",
			"How often the end of such a connection is repeated to a client that does not acknowledge it (Linux: tcp_orphan_retries).",
		},
		{
			"stack.handshake.max_time_wait", number(&o.MaxTimeWait, 1, 1<<28, ""), "262144",
			"Connections in time_wait at once; past it they are forgotten (Linux: tcp_max_tw_buckets).",
		},
		{
			"stack.handshake.max_orphans", number(&o.MaxOrphans, 1, 1<<28, ""), "65536",
			"Connections at once that are closed here and not by their client; past it they are reset (Linux: tcp_max_orphans).",
		},
		{
			"stack.handshake.reset_rate", number(&o.ResetRate, 1, 1e9, "a second"), "1000",
			"RSTs to packets of no connection; one client gets an eighth.",
		},
		{
			"stack.handshake.challenge_rate", number(&o.ChallengeRate, 1, 1e9, "a second"), "1000",
			"Acknowledgements that answer what may be forged (RFC 5961) (Linux: tcp_challenge_ack_limit).",
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
	minMSS            = 536
	maxMSS            = 65495
	maxTable          = 1 << 20
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
