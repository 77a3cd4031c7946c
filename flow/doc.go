// Package flow is the leaf where the stack and the proxy meet: it names a flow,
// says what a terminated connection can do, and what a handler must answer.
//
// # Theory of operation
//
// The stack ends the client's half of every flow inside the process. What it
// hands out is not a net.Conn but a [Conn] whose calls never block: bytes are
// passed from the stack's own memory to an [io.Writer] and taken from a
// [Payload] straight into the stack's memory, and a [Notifier] says when it is
// worth looking again. A relay of one goroutine per direction, a reactor that
// serves ten thousand flows, and a net.Conn for ordinary Go code ([NewNetConn])
// are all built from these few calls, and none of them costs a buffer while
// nothing happens.
//
// A connection begins as a [Request]: the client's SYN has been seen and nothing
// was answered yet. The [Handler] decides, usually after it has dialled, whether
// the client sees a handshake ([Request.Accept]), a reset ([Request.Refuse]) or
// silence ([Request.Drop]). A handler that is a [Starter] is told of a request, and
// told again when its connection stands ([LaterRequest]), and needs no goroutine
// for it.
//
// UDP has no connection, so it has no object either: each datagram is one call of
// [Handler.HandleDatagram], and answers go back through a [DatagramWriter].
// Sessions, their timeouts and their limit are the handler's business.
//
// The package imports nothing but the standard library and x/sys, so that neither
// side learns of the other.
package flow
