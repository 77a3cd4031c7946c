// Package proxy serves the flows that the stack terminates: through host sockets
// (handlers direct and fixed) or by itself (handler echo).
//
// # Theory of operation
//
// TCP. A request is dialled and then answered. Where it comes before the client's
// SYN is answered, which is the stack's to say, a client sees a refused port as
// refused and a dead host as silence. Then a relay moves bytes without a
// buffer of its own: up, the stack passes the slices it received to send(2), short
// ones gathered; down, the stack reads the socket straight into its own memory.
// What the other side does not take waits where it is, save for the last read.
//
// There are two relays with the same rules. The reactor (reactor_*.go, the default)
// serves all connections on one event loop, from the request on: a connection is a
// struct that the loop calls when its socket is connected, when the client's
// handshake is done, and when the stack or the socket has news; and a timer in its
// wheel. The simple one (relay_*.go) has a goroutine a request, and two a
// connection, one a direction, which sleep in the runtime's poller or on a channel.
//
//	client FIN   -> shutdown(SHUT_WR) upstream, the other direction goes on
//	upstream FIN -> FIN to the client, the other direction goes on
//	client RST   -> RST upstream         upstream RST -> RST to the client
//	both FINs    -> both sides closed    silence      -> RST both ways
//
// An upstream that takes no more may still be saying why, so what it sent is passed
// on first, and what the client goes on sending is thrown away meanwhile: a client
// that reads only when it has sent everything comes to hear it. Then it gets RST.
//
// Idle connections end after Options.IdleTimeout, half-closed ones after
// Options.DrainTimeout, both without a byte either way; those one of whose sides
// takes nothing of what waits for it after Options.StallTimeout, whatever the other
// direction does. What counts is what a side's peer takes of the buffer that holds
// it: one that takes a byte now and then is slow, not stalled.
//
// UDP. A session per flow owns one connected socket. A client's datagram is sent on
// it by whoever read the device, under a lock of that session alone; answers, a
// batch for each event, timeouts and every close are an event loop's: the shared
// one, or with the simple relay one that the first session makes. Sessions are
// bounded; at the bound the longest idle one goes. ECONNREFUSED from the upstream
// becomes an ICMP port unreachable to the client; what else ICMP says of one datagram
// ends no session.
//
// Echo. The reactor's other handler reads into memory of the loop and writes from
// there; a connection owns only what its client does not take back.
//
// Descriptors. A flow that finds none left is refused, and so are those that come
// within 100 ms without asking the kernel, unless a socket was closed meanwhile. The
// last 64 (or an eighth) are left to the rest of the process. The begin and the end
// of such a shortage are told to whom Handler.OnShortage names.
//
// Policy. Destinations in the classes of Classes are refused unless allowed; the
// check is made on the numeric address that is dialled. Targets that the operator
// named (Forward, Target) are taken as allowed. A connection or datagram of our own
// that comes back through the device is refused: without that a missing mark or
// route loops until ports run out.
//
// # Goroutines
//
// With the reactor, Run's alone: its handlers are flow.Starters. With the simple
// relay one per request, until its connection ends, one more per connection unless
// the handler is echo, and one for all UDP sessions. The stack waits for those of
// TCP, Run for the others.
package proxy
