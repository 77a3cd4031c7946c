package flow_test

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// memConn is one end of a connection in memory, with the habits of the stack's:
// one lock over everything, notifications from under it, small pieces of memory
// per Write, and an error that stays.
type memConn struct {
	t    testing.TB
	id   flow.ID
	peer *memConn
	mute bool // nothing is notified of this end's own Close and Abort

	reading, writing atomic.Int32 // calls under way: more than one of a kind is a fault

	lock     *sync.Mutex // both ends'; guards what follows
	received []byte      // unread bytes
	window   int         // how many bytes received may hold
	fin      bool        // the peer sends no more
	finSent  bool
	closed   bool
	broken   error // why the connection failed
	notifier flow.Notifier
}

// memPair returns two joined ends whose windows hold so many bytes.
func memPair(t testing.TB, window int) (client, server *memConn) {
	lock := new(sync.Mutex)
	a, b := netip.MustParseAddrPort("198.18.0.1:40000"), netip.MustParseAddrPort("192.0.2.1:80")
	client = &memConn{t: t, lock: lock, window: window, id: flow.ID{Protocol: flow.TCP, Client: b, Destination: a}}
	server = &memConn{t: t, lock: lock, window: window, id: flow.ID{Protocol: flow.TCP, Client: a, Destination: b}}
	client.peer, server.peer = server, client
	return client, server
}

func (c *memConn) ID() flow.ID { return c.id }

// notify calls the notifier with the lock held, as the stack does.
func (c *memConn) notify() {
	if c.notifier != nil {
		c.notifier.Notify()
	}
}

func (c *memConn) SetNotifier(n flow.Notifier) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.notifier = n
}

func (c *memConn) Readiness() flow.Events {
	c.lock.Lock()
	defer c.lock.Unlock()
	var e flow.Events
	if len(c.received) > 0 || c.fin {
		e |= flow.EventIn
	}
	if len(c.peer.received) < c.peer.window {
		e |= flow.EventOut
	}
	return e
}

func (c *memConn) Broken() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.broken != nil
}

// piece is the most a writer is shown at once.
const piece = 700

func (c *memConn) ReadTo(w io.Writer) (total int64, err error) {
	if c.reading.Add(1) != 1 {
		c.t.Error("two ReadTo at once")
	}
	defer c.reading.Add(-1)
	c.lock.Lock()
	defer c.lock.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case len(c.received) > 0:
	case c.broken != nil:
		return 0, &flow.Error{Op: "read", ID: c.id, Err: c.broken}
	case c.fin:
		return 0, io.EOF
	default:
		return 0, flow.ErrWouldBlock
	}
	for len(c.received) > 0 && err == nil {
		var n int
		n, err = w.Write(c.received[:min(piece, len(c.received))])
		c.received = c.received[n:]
		total += int64(n)
	}
	c.peer.notify()
	return total, err
}

func (c *memConn) WriteFrom(p flow.Payload) (int64, error) {
	if c.writing.Add(1) != 1 {
		c.t.Error("two WriteFrom or CloseWrite at once")
	}
	defer c.writing.Add(-1)
	runtime.Gosched() // so that calls that may meet do
	c.lock.Lock()
	defer c.lock.Unlock()
	room := min(c.peer.window-len(c.peer.received), p.Len())
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, &flow.Error{Op: "write", ID: c.id, Err: c.broken}
	case c.finSent:
		return 0, &flow.Error{Op: "write", ID: c.id, Err: unix.EPIPE}
	case c.peer.closed: // Close reads no more: the next segment is answered by RST
		c.fail(unix.ECONNRESET)
		return int64(room), nil
	case room <= 0:
		return 0, flow.ErrWouldBlock
	}
	b := make([]byte, room)
	if _, err := io.ReadFull(p, b); err != nil {
		return 0, err
	}
	c.peer.received = append(c.peer.received, b...)
	c.peer.notify()
	return int64(room), nil
}

// fail breaks this end; the lock is held.
func (c *memConn) fail(err error) {
	if c.broken == nil && !c.closed {
		c.broken = err
		c.notify()
	}
}

func (c *memConn) CloseWrite() error {
	if c.writing.Add(1) != 1 {
		c.t.Error("two WriteFrom or CloseWrite at once")
	}
	defer c.writing.Add(-1)
	runtime.Gosched() // so that calls that may meet do
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.finish()
	c.notify() // as gVisor does from inside Shutdown
	return nil
}

// finish sends FIN, once; the lock is held.
func (c *memConn) finish() {
	if !c.finSent {
		c.finSent = true
		c.peer.fin = true
		c.peer.notify()
	}
}

func (c *memConn) Close() error {
	c.end(false)
	return nil
}

func (c *memConn) Abort() { c.end(true) }

func (c *memConn) end(abort bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if !c.mute {
		c.notify()
	}
	c.notifier = nil
	if abort || len(c.received) > 0 {
		c.peer.fail(unix.ECONNRESET)
		return
	}
	c.finish()
}
