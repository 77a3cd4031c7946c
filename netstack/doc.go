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
// checksums, carries superframes whole, and shows every TCP packet, both ways, to
// the table of flows (package minisock).
//
// TCP before there is an endpoint (attempt.go, open.go). A SYN becomes a record of
// 128 bytes and, if the upstream is dialled first, an attempt, which the handler is
// told of:
//
//	SYN              Dial     the handler dials, and answers the attempt:
//	                          AcceptLater, Refuse or Drop
//	ACK or data      Create   bind to the destination, connect to the client; the
//	                          record swallows the stack's SYN and answers it
//	ACK or data      Hold     kept with the attempt until the endpoint has its SYN-ACK
//	the endpoint is connected: opened gives the connection to the handler
//
// With Options.Dial after, and for a client that came in by a cookie, the attempt
// begins with Create, and the handler is told when the endpoint is connected. An
// attempt is found by a slot number that its record holds, and forgotten when the
// handler has its connection or has said no.
//
// A connection is a conn: gVisor's endpoint, a waiter entry, the record's handle,
// and nothing that grows while it is idle. Its record translates its headers.
//
// Silent clients (ended.go). gVisor's keepalive is off: it is a timer an endpoint, which
// nobody paces, and sends no RST when it gives up. The table of flows probes from its
// records. When it gives a client up, or ends an idle connection because memory is
// short, it has sent the RST; the endpoint is then found by its addresses and ends with
// ETIMEDOUT or ECONNABORTED, and its handler hears of that as of any failure.
//
// TCP after its handler has closed (tcp.go). gVisor sends what is left. While there
// are any, closed endpoints are looked at every 100 ms: one that ended without a
// packet releases its record; one that only waits for its client is aborted, and the
// record, which costs less, goes on alone. gVisor's own TIME_WAIT is a millisecond.
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
// two pointers and posts a task, or calls flow.Notifier.Notify, which must not call
// back. Packets leave with that lock held, too: what the link does then takes the
// table's locks, which are never held while something is called.
//
// Stack.mu guards only whether the stack is closed. An attempt is counted as its
// handler's under it, and the handler is told after it: Close waits for those that
// were counted, and there are none after it. Stack.mu and the locks of an attempt,
// of the slots and of the list of closed endpoints are held for a few assignments,
// and nothing is called meanwhile.
//
// # Goroutines
//
// Run: one per device queue, one each for the table's timers, the probing of clients
// and the closed endpoints, one for the Ethernet of a TAP. gVisor: one per processor, ended by
// Close, and short ones for timers. An attempt has none if the handler is a
// flow.Starter; else one for as long as HandleTCP runs, which Close waits for. An
// endpoint whose tuple is still taken is tried again from a timer, for 127 ms in
// all, and so is one whose packets another queue's reader holds; without a loop,
// news of an endpoint being connected is a short goroutine.
package netstack
