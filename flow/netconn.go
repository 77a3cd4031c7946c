package flow

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// NetConn is a Conn as a net.Conn, for ordinary Go code. Every method may be
// called from any goroutine.
//
// It adds no goroutine and no buffer: Read and Write move bytes between the
// caller's slice and the stack, and wait in the caller's goroutine for the
// Notifier, a deadline or Close. Errors are *net.OpError and unwrap to the
// syscall.Errno of the connection, to os.ErrDeadlineExceeded, or to
// net.ErrClosed; the client's FIN is io.EOF.
type NetConn struct {
	conn   Conn
	closed atomic.Bool
	reads  half
	writes half

	// writing is held during WriteFrom and CloseWrite, which may not overlap,
	// but not while a Write waits.
	writing sync.Mutex

	sink   sink   // of the Read whose turn it is
	source source // of the Write whose turn it is
}

var _ net.Conn = (*NetConn)(nil)

// NewNetConn returns c as a net.Conn. It sets c's Notifier, and c is its own from
// then on.
func NewNetConn(c Conn) *NetConn {
	n := &NetConn{conn: c}
	n.reads.wake = make(chan struct{}, 1)
	n.writes.wake = make(chan struct{}, 1)
	c.SetNotifier((*notifier)(n))
	return n
}

// half is one direction of a NetConn.
type half struct {
	turn     sync.Mutex                // held by the one call at work
	wake     chan struct{}             // something changed: look again
	deadline atomic.Pointer[time.Time] // nil is none
}

// ring wakes the call at work, or the next one; it never blocks.
func (h *half) ring() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// wait returns when something changed or the deadline has come.
func (h *half) wait() {
	var expired <-chan time.Time
	if d := h.deadline.Load(); d != nil {
		timer := time.NewTimer(time.Until(*d))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-h.wake:
	case <-expired:
	}
}

func (h *half) setDeadline(t time.Time) {
	if t.IsZero() {
		h.deadline.Store(nil)
	} else {
		h.deadline.Store(&t)
	}
	h.ring()
}

// notifier keeps Notify out of NetConn's methods.
type notifier NetConn

// Notify implements Notifier.
func (n *notifier) Notify() {
	n.reads.ring()
	n.writes.ring()
}

// ID returns the connection's flow.
func (n *NetConn) ID() ID { return n.conn.ID() }

// LocalAddr returns the address that the client connected to.
func (n *NetConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(n.conn.ID().Destination) }

// RemoteAddr returns the client's address.
func (n *NetConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(n.conn.ID().Client) }

// Read implements net.Conn.
func (n *NetConn) Read(b []byte) (int, error) {
	n.reads.turn.Lock()
	defer n.reads.turn.Unlock()
	for {
		if err := n.usable(&n.reads); err != nil {
			return 0, n.fail("read", err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		n.sink.b = b
		got, err := n.conn.ReadTo(&n.sink)
		n.sink.b = nil
		switch {
		case got > 0:
			return int(got), nil
		case !errors.Is(err, ErrWouldBlock):
			return 0, n.fail("read", err)
		}
		n.reads.wait()
	}
}

// Write implements net.Conn.
func (n *NetConn) Write(b []byte) (int, error) {
	n.writes.turn.Lock()
	defer n.writes.turn.Unlock()
	sent := 0
	for {
		if err := n.usable(&n.writes); err != nil {
			return sent, n.fail("write", err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		took, err := n.push(b[sent:])
		sent += took
		switch {
		case sent == len(b):
			return sent, nil
		case err == nil: // the rest may fit, too
		case errors.Is(err, ErrWouldBlock):
			n.writes.wait()
		default:
			return sent, n.fail("write", err)
		}
	}
}

// push hands the stack what it takes of b now.
func (n *NetConn) push(b []byte) (int, error) {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.source.b = b
	took, err := n.conn.WriteFrom(&n.source)
	n.source.b = nil
	return int(took), err
}

// CloseWrite sends FIN after what was written; Read goes on. A Write that waits
// fails with EPIPE.
func (n *NetConn) CloseWrite() error {
	if n.closed.Load() {
		return n.fail("close", net.ErrClosed)
	}
	n.writing.Lock()
	err := n.conn.CloseWrite()
	n.writing.Unlock()
	n.writes.ring()
	return n.fail("close", err)
}

// Close ends both directions in order: FIN after what was written, RST if bytes
// were received and never read. It returns at once; calls that wait fail with
// net.ErrClosed.
func (n *NetConn) Close() error {
	if n.closed.Swap(true) {
		return n.fail("close", net.ErrClosed)
	}
	err := n.conn.Close()
	n.reads.ring()
	n.writes.ring()
	return n.fail("close", err)
}

// Abort sends RST and forgets the connection, as a TCPConn with SetLinger(0) does
// at Close.
func (n *NetConn) Abort() {
	n.closed.Store(true)
	n.conn.Abort()
	n.reads.ring()
	n.writes.ring()
}

// SetDeadline implements net.Conn.
func (n *NetConn) SetDeadline(t time.Time) error { return n.setDeadlines(t, &n.reads, &n.writes) }

// SetReadDeadline implements net.Conn.
func (n *NetConn) SetReadDeadline(t time.Time) error { return n.setDeadlines(t, &n.reads) }

// SetWriteDeadline implements net.Conn.
func (n *NetConn) SetWriteDeadline(t time.Time) error { return n.setDeadlines(t, &n.writes) }

func (n *NetConn) setDeadlines(t time.Time, halves ...*half) error {
	if n.closed.Load() {
		return n.fail("set", net.ErrClosed)
	}
	for _, h := range halves {
		h.setDeadline(t)
	}
	return nil
}

// usable returns why a call on h may not go on.
func (n *NetConn) usable(h *half) error {
	if n.closed.Load() {
		return net.ErrClosed
	}
	if d := h.deadline.Load(); d != nil && !time.Now().Before(*d) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// fail says in package net's words what err is; nil stays nil, and io.EOF is
// never wrapped.
func (n *NetConn) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if e, ok := errors.AsType[*Error](err); ok {
		err = e.Err // OpError names operation and addresses itself
	}
	return &net.OpError{Op: op, Net: n.conn.ID().Protocol.String(), Source: n.LocalAddr(), Addr: n.RemoteAddr(), Err: err}
}

var errFull = errors.New("flow: the reader's slice is full")

// sink is where ReadTo puts bytes: the caller's slice.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	c := copy(s.b, p)
	s.b = s.b[c:]
	if c < len(p) {
		return c, errFull
	}
	return c, nil
}

// source is the caller's slice as a Payload.
type source struct{ b []byte }

func (s *source) Len() int { return len(s.b) }

func (s *source) Read(p []byte) (int, error) {
	if len(s.b) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	c := copy(p, s.b)
	s.b = s.b[c:]
	return c, nil
}
