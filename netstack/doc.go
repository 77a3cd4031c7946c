// Package netstack terminates TCP, UDP and ICMP in a gVisor stack over a device
// and hands what it terminates to a flow.Handler.
//
// # Theory of operation
//
// One NIC stands for the whole world behind the device's back. For IPv4 it owns
// one address with prefix length 0, so that every destination is local at the
// same cost; gVisor's promiscuous mode instead walks all destinations in use for
// every packet (2.6 us a packet with one, 364 us with 10,000). IPv6 has no such
// match in gVisor, but its promiscuous mode looks an address up in a map, so it is
// used there. The link endpoint (package link) filters martians, verifies
// checksums, and carries superframes whole.
//
// TCP: gVisor's Forwarder turns a SYN into a request and a goroutine; the handler
// dials and then answers. Attempts are bounded (Options.MaxHalfOpen), and so are
// connections. A connection is a conn: gVisor's endpoint, a waiter entry, and
// nothing that grows while it is idle.
//
// UDP: datagrams are taken from the transport layer's default handler and written
// with a route per datagram. There is no endpoint and no state here.
//
// ICMP echo is answered by gVisor for every address. Its limiter (1,000 errors a
// second, bursts of 50) bounds ICMP errors.
//
// # Locks
//
// gVisor calls NotifyEvent with an endpoint's lock held; conn.NotifyEvent loads
// one pointer and calls flow.Notifier.Notify, which must not call back. Stack.mu
// guards only whether the stack is closed and the count of running handlers.
//
// # Goroutines
//
// Run: one per device queue. gVisor: one per processor, ended by Close. One per
// connection attempt for as long as its handler runs. Close returns after all.
package netstack
