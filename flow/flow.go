package flow

import (
	"context"
	"io"
	"net/netip"
	"strconv"
)

// Protocol is an IANA protocol number, as in the IPv4 Protocol field.
type Protocol uint8

// The protocols a flow may have.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns the lower-case name used in logs and metric labels.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// ID is a flow's 5-tuple. Client is the end beyond the device, Destination the
// address the client believes it talks to. Both are unmapped (never ::ffff:0:0/96)
// and carry no zone.
type ID struct {
	Protocol    Protocol
	Client      netip.AddrPort
	Destination netip.AddrPort
}

// String formats the flow as "tcp 198.18.0.1:40000 > 192.0.2.1:80".
func (id ID) String() string {
	b := make([]byte, 0, 64)
	b = append(b, id.Protocol.String()...)
	b = append(b, ' ')
	b = id.Client.AppendTo(b)
	b = append(b, " > "...)
	return string(id.Destination.AppendTo(b))
}

// Request is a TCP connection attempt: the client's SYN was seen and not yet
// answered, or, if the stack was told to dial after it, the client has finished its
// handshake. Exactly one of Accept, Refuse and Drop must be called, once; until then
// an attempt whose SYN is not answered holds one slot of the stack's limit of
// half-open connections.
type Request interface {
	ID() ID

	// Accept completes the handshake with the client and returns the
	// connection, which the caller then owns. It blocks until the client's last
	// ACK came or the handshake failed; the error unwraps to a syscall.Errno
	// (ETIMEDOUT, ECONNRESET, ENOBUFS) or is net.ErrClosed when the stack ends.
	Accept() (Conn, error)

	// Refuse answers with a RST, as a host without a listener does.
	Refuse()

	// Drop answers nothing; the client will try again. One that has finished its
	// handshake gets a RST.
	Drop()
}

// LaterRequest is a Request whose connection need not be waited for.
type LaterRequest interface {
	Request

	// AcceptLater is Accept that returns at once. done is called once, with what
	// Accept would have returned: from any goroutine, perhaps before AcceptLater
	// has returned. It must not block.
	AcceptLater(done func(Conn, error))
}

// Starter is a Handler that needs no goroutine for an attempt: the stack calls
// StartTCP where it would call HandleTCP, on the goroutine that reads the device, so
// it must not block.
type Starter interface {
	Handler
	StartTCP(ctx context.Context, req LaterRequest)
}

// Later makes a LaterRequest of a request, which gets a goroutine when it is
// accepted.
func Later(req Request) LaterRequest { return later{req} }

type later struct{ Request }

func (l later) AcceptLater(done func(Conn, error)) {
	go func() { done(l.Accept()) }()
}

// Handler serves what the stack terminates.
type Handler interface {
	// HandleTCP serves one connection attempt from SYN to close. It is called
	// on a goroutine of its own; the stack waits for it when it closes, and ctx
	// is done from then on.
	HandleTCP(ctx context.Context, req Request)

	// HandleDatagram takes one UDP datagram from a client; answers go through
	// w, then or later. It is called on the goroutine that reads the device and
	// must not block; payload is the stack's memory and is valid only during
	// the call. A false result means nobody serves that destination: the client
	// gets an ICMP port unreachable.
	HandleDatagram(w DatagramWriter, id ID, payload []byte) bool
}

// DatagramWriter sends UDP towards clients.
type DatagramWriter interface {
	// WriteDatagram sends payload to the client id.Client as if it came from
	// from, and keeps nothing. from need not be id.Destination: endpoint-
	// independent mappings answer from any address of the same family.
	WriteDatagram(id ID, from netip.AddrPort, payload []byte) error

	// RejectDatagram tells the client by ICMP (RFC 792, RFC 4443) that its
	// datagrams for id.Destination reach nobody.
	RejectDatagram(id ID)
}

// Payload is bytes to be written, read by the stack straight into its own memory.
type Payload interface {
	io.Reader
	// Len is exactly how many bytes Read will deliver. The stack trusts it.
	Len() int
}

// Notifier is told that a connection's readiness may have changed.
type Notifier interface {
	// Notify runs under the stack's locks, from any goroutine, also from inside
	// the owner's own calls of Close, Abort and CloseWrite. It may set a flag
	// or wake a goroutine; it must not block, nor call anything of the Conn but
	// Readiness and Broken.
	Notify()
}

// Conn is the client's half of an established TCP connection. No call blocks.
// Calls that read may run beside calls that write; two of one kind may not.
//
// Errors unwrap to the syscall.Errno a kernel socket would give (ECONNRESET,
// ETIMEDOUT, EPIPE ...), to io.EOF, or to net.ErrClosed after Close or Abort.
type Conn interface {
	ID() ID

	// Readiness reports what would not block now.
	Readiness() Events

	// SetNotifier registers n in place of the one before; nil ends it. What
	// became ready before the call is not told again: look at Readiness after.
	SetNotifier(n Notifier)

	// ReadTo passes received bytes, in order and without a copy, to w until
	// there are none, or w returns an error; then it returns that error with
	// the number of bytes w took, and the rest stays to be read. No bytes at
	// all is ErrWouldBlock; after the client's FIN it is io.EOF. The slices w
	// sees are the stack's and die when Write returns; w must not block, since
	// the connection's lock is held.
	ReadTo(w io.Writer) (int64, error)

	// WriteFrom queues up to p.Len() bytes for the client and returns how many
	// it took, which may be fewer: try again with the rest. Only ErrWouldBlock
	// (with 0) says that the send buffer is full and EventOut will follow. A p
	// whose Read fails loses what it read in that call.
	WriteFrom(p Payload) (int64, error)

	// Broken reports whether the connection was reset or timed out, rather than
	// open or ended in order. Notify may call it.
	Broken() bool

	// CloseWrite sends FIN after what was written (half-close).
	CloseWrite() error

	// Close ends both directions in order: FIN after what was written, RST if
	// received bytes were never read, as Linux does. It returns at once; the
	// stack finishes alone. Safe to call again.
	Close() error

	// Abort sends RST and forgets the connection. Safe to call again.
	Abort()
}
