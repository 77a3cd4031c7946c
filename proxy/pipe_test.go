package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// memConn is one end of a connection in memory. The relay gets one, and the test has
// the other, usually as a flow.NetConn. It has the habits of the stack's
// connections: one lock over everything, held while a writer is shown memory and
// while the notifier is called; memory in small pieces; errors that stay. With
// chaos it also takes and shows less than it could, and notifies for nothing.
type memConn struct {
	t    testing.TB
	id   flow.ID
	peer *memConn

	reading, writing atomic.Int32 // calls under way: more than one of a kind is a fault
	isBroken         atomic.Bool

	lock     *sync.Mutex // both ends'; guards what follows
	chaos    *rand.Rand  // nil for none
	received []byte      // unread bytes
	window   int         // how many bytes received may hold
	reticent bool        // the peer hears of room when half the window is free
	fin      bool        // the peer sends no more
	finSent  bool
	closed   bool
	broken   error // why the connection failed
	notifier flow.Notifier
}

const defaultWindow = 256 << 10

// pipe returns two joined ends; id is as the server's end sees it.
func pipe(t testing.TB, id flow.ID, chaos *rand.Rand) (client, server *memConn) {
	lock := new(sync.Mutex)
	far := flow.ID{Protocol: id.Protocol, Client: id.Destination, Destination: id.Client}
	client = &memConn{t: t, lock: lock, chaos: chaos, window: defaultWindow, id: far}
	server = &memConn{t: t, lock: lock, chaos: chaos, window: defaultWindow, id: id}
	client.peer, server.peer = server, client
	return client, server
}

// setWindow changes how many bytes this end takes unread.
func (c *memConn) setWindow(n int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.window = n
	c.peer.notify()
}

// unread is how many bytes wait at this end.
func (c *memConn) unread() int {
	c.lock.Lock()
	defer c.lock.Unlock()
	return len(c.received)
}

// fail breaks this end, as a timeout does.
func (c *memConn) fail(err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.failLocked(err)
}

func (c *memConn) failLocked(err error) {
	if c.broken == nil && !c.closed {
		c.broken = err
		c.isBroken.Store(true)
		c.notify()
	}
}

// failure is why this end broke, nil if it did not.
func (c *memConn) failure() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.broken
}

// isClosed reports whether Close or Abort was called.
func (c *memConn) isClosed() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.closed
}

// notify calls the notifier, with the lock held.
func (c *memConn) notify() {
	if c.notifier != nil {
		c.notifier.Notify()
	}
}

// disturb notifies both ends for nothing, now and then.
func (c *memConn) disturb() {
	if c.chaos != nil && c.chaos.IntN(4) == 0 {
		c.notify()
		c.peer.notify()
	}
}

// some is n, or with chaos a part of it.
func (c *memConn) some(n int) int {
	if c.chaos == nil || n < 2 {
		return n
	}
	return 1 + c.chaos.IntN(n)
}

func (c *memConn) ID() flow.ID { return c.id }

func (c *memConn) SetNotifier(n flow.Notifier) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.notifier = n
}

func (c *memConn) Readiness() flow.Events { return flow.EventIn | flow.EventOut }

// Broken is called by notifiers, so it takes no lock.
func (c *memConn) Broken() bool { return c.isBroken.Load() }

func (c *memConn) ReadTo(w io.Writer) (total int64, err error) {
	if c.reading.Add(1) != 1 {
		c.t.Error("two ReadTo at once")
	}
	defer c.reading.Add(-1)
	runtime.Gosched() // so that calls that may meet do
	c.lock.Lock()
	defer c.lock.Unlock()
	c.disturb()
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
		n, err = w.Write(c.received[:c.some(min(16<<10, len(c.received)))])
		c.received = c.received[n:]
		total += int64(n)
	}
	if !c.reticent || len(c.received) <= c.window/2 {
		c.peer.notify()
	}
	return total, err
}

func (c *memConn) WriteFrom(p flow.Payload) (int64, error) {
	if c.writing.Add(1) != 1 {
		c.t.Error("two WriteFrom or CloseWrite at once")
	}
	defer c.writing.Add(-1)
	runtime.Gosched()
	c.lock.Lock()
	defer c.lock.Unlock()
	c.disturb()
	room := min(c.peer.window-len(c.peer.received), p.Len())
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, &flow.Error{Op: "write", ID: c.id, Err: c.broken}
	case c.finSent:
		return 0, &flow.Error{Op: "write", ID: c.id, Err: unix.EPIPE}
	case c.peer.closed: // Close reads no more: the next segment is answered by RST
		c.failLocked(unix.ECONNRESET)
		return 0, &flow.Error{Op: "write", ID: c.id, Err: c.broken}
	case room <= 0:
		return 0, flow.ErrWouldBlock
	}
	b := make([]byte, c.some(room))
	if _, err := io.ReadFull(p, b); err != nil {
		return 0, err
	}
	c.peer.received = append(c.peer.received, b...)
	c.peer.notify()
	return int64(len(b)), nil
}

func (c *memConn) CloseWrite() error {
	if c.writing.Add(1) != 1 {
		c.t.Error("two WriteFrom or CloseWrite at once")
	}
	defer c.writing.Add(-1)
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
	c.over(false)
	return nil
}

func (c *memConn) Abort() { c.over(true) }

func (c *memConn) over(abort bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.closed {
		return
	}
	c.notify() // gVisor notifies twice from inside Close
	c.closed = true
	c.notify()
	c.notifier = nil
	if abort || len(c.received) > 0 {
		c.peer.failLocked(unix.ECONNRESET)
		return
	}
	c.finish()
}

// flows are one flow a family, as a stack would name them.
func flows(proto flow.Protocol) map[string]flow.ID {
	return map[string]flow.ID{
		"ipv4": {Protocol: proto, Client: netip.MustParseAddrPort("198.18.0.1:40000"), Destination: netip.MustParseAddrPort("127.0.0.1:0")},
		"ipv6": {Protocol: proto, Client: netip.MustParseAddrPort("[fd00:18::1]:40000"), Destination: netip.MustParseAddrPort("[::1]:0")},
	}
}
