// Package proxy serves the flows that the stack terminates: through host sockets
// (handlers direct and fixed) or by itself (handler echo).
//
// # Theory of operation
//
// TCP. A request is dialled before its SYN is answered, so a client sees a refused
// port as refused and a dead host as silence. Then a relay moves bytes with two
// goroutines, one a direction, and no buffer of its own: up, the stack passes the
// slices it received to send(2); down, the stack reads the socket straight into
// its own memory. A goroutine that has nothing to do sleeps in the runtime's
// poller or on a channel and holds no buffer.
//
//	client FIN   -> shutdown(SHUT_WR) upstream, the other direction goes on
//	upstream FIN -> FIN to the client, the other direction goes on
//	client RST   -> RST upstream         upstream RST -> RST to the client
//	both FINs    -> both sides closed    silence      -> RST both ways
//
// Idle connections end after Options.IdleTimeout, half-closed ones after
// Options.DrainTimeout, both without a byte either way.
//
// UDP. A session per flow owns one connected socket and one goroutine that waits
// for answers. Sessions are bounded; at the bound the longest idle one goes.
// ECONNREFUSED from the upstream becomes an ICMP port unreachable to the client.
//
// Policy. Destinations in the classes of Classes are refused unless allowed; the
// check is made on the numeric address that is dialled, after Options.Forward and
// instead of before it, except that targets the operator named (Forward, Target)
// are taken as allowed. A connection of our own that comes back through the device
// is refused: without that a missing mark or route loops until ports run out.
//
// # Goroutines
//
// Two per TCP connection, one per UDP session, and Run's, which ends idle
// sessions. The stack waits for the first kind, Run for the others.
package proxy
