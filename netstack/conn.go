package netstack

import (
	"errors"
	"io"
	"net"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack/minisock"
)

// conn is a flow.Conn over a gVisor endpoint, in 280 bytes: 288 are what Go has for it.
type conn struct {
	s     *Stack
	ep    tcpip.Endpoint
	id    flow.ID
	wq    waiter.Queue
	entry waiter.Entry
	h     minisock.Handle

	attempt  atomic.Pointer[attempt] // until the endpoint is connected
	notifier atomic.Pointer[flow.Notifier]
	failure  atomic.Pointer[error] // gVisor returns a connection's error once
	sink     sink                  // of the one reader
	written  int64                 // bytes, by the one writer
	bulk     atomic.Pointer[bulk]  // nil before bulkAfter of them

	receiveGrown, sendGrown grown
	closed                  atomic.Bool
	rtt                     uint8 // of the handshake, as minisock.Result has it
	sendFixed               bool  // the send buffer, by the one writer
}

func (c *conn) ID() flow.ID { return c.id }

// watched are the events a flow.Conn reports; gVisor's values are poll(2)'s.
const watched = waiter.EventIn | waiter.EventOut | waiter.EventErr | waiter.EventHUp | waiter.EventRdHUp

// Readiness masks what gVisor reports: it answers with more than was asked, and
// in a final state with everything.
func (c *conn) Readiness() flow.Events {
	m := c.ep.Readiness(watched) & watched
	return flow.Events(m.ToLinux())
}

// Broken looks at the endpoint's state, which is one atomic load.
func (c *conn) Broken() bool {
	return tcp.EndpointState(c.ep.State()) == tcp.StateError //nolint:gosec // gVisor's own conversion back
}

// SetNotifier is one atomic store: the waiter entry stays registered for the
// connection's whole life, since registering under gVisor's locks is not allowed.
func (c *conn) SetNotifier(n flow.Notifier) {
	if n == nil {
		c.notifier.Store(nil)
		return
	}
	c.notifier.Store(&n)
}

// NotifyEvent implements waiter.EventListener. It runs under gVisor's locks.
func (c *conn) NotifyEvent(waiter.EventMask) {
	if a := c.attempt.Load(); a != nil {
		a.post()
		return
	}
	if n := c.notifier.Load(); n != nil {
		(*n).Notify()
	}
}

// sink is an io.Writer that keeps its error, which Endpoint.Read swallows, and
// turns a short write into one, without which it would panic.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	s.err = err
	return n, err
}

func (c *conn) ReadTo(w io.Writer) (int64, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	c.sink = sink{w: w}
	res, err := c.ep.Read(&c.sink, tcpip.ReadOptions{})
	sinkErr := c.sink.err
	c.sink = sink{}
	if res.Count > 0 {
		c.received(res.Count)
	}
	if sinkErr != nil {
		return int64(res.Count), sinkErr
	}
	if err != nil {
		return 0, c.fail("read", err)
	}
	return int64(res.Count), nil
}

func (c *conn) WriteFrom(p flow.Payload) (int64, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.ep.Write(wholeSegments(p), tcpip.WriteOptions{})
	c.sent(n)
	if err != nil {
		return n, c.fail("write", err)
	}
	return n, nil
}

// maxSegment is the most payload gVisor puts into one superframe: the GSO size
// less the room it keeps for headers (tcp/snd.go, maybeSendSegment).
const maxSegment = 65535 - 161

// wholeSegments cuts a long payload to a multiple of maxSegment: gVisor sends
// each write's last bytes as a segment of their own, and a frame of 162 bytes
// costs the device as much as one of 65,374.
func wholeSegments(p flow.Payload) flow.Payload {
	if n := p.Len(); n > maxSegment && n%maxSegment != 0 {
		return &shortened{p, n - n%maxSegment}
	}
	return p
}

// shortened is a Payload that claims less than it has.
type shortened struct {
	flow.Payload
	n int
}

func (s *shortened) Len() int { return s.n }

func (s *shortened) Read(b []byte) (int, error) {
	n, err := s.Payload.Read(b[:min(len(b), s.n)])
	s.n -= n
	return n, err
}

// fail translates err and remembers a failure of the whole connection, which
// gVisor reports once and then forgets for an end of stream.
func (c *conn) fail(op string, err tcpip.Error) error {
	e := translate(err)
	switch {
	case errors.Is(e, flow.ErrWouldBlock):
		return e
	case flow.ErrnoOf(e) == 0 || isClosedForSend(err):
		if f := c.failure.Load(); f != nil {
			return *f
		}
		return e
	}
	e = &flow.Error{Op: op, ID: c.id, Err: e}
	c.failure.CompareAndSwap(nil, &e)
	return e
}

func isClosedForSend(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrClosedForSend)
	return ok
}

func (c *conn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.fail("shutdown", err)
	}
	return nil
}

func (c *conn) Close() error {
	if !c.end() {
		return nil
	}
	c.ep.Close()
	if c.Broken() {
		c.s.flows.Release(c.h) // nothing else will tell the record
		return nil
	}
	c.s.closing.add(c.ep, c.h)
	return nil
}

func (c *conn) Abort() {
	if c.end() {
		c.discard()
	}
}

// discard resets the endpoint and ends its record, if the RST has not.
func (c *conn) discard() {
	c.wq.EventUnregister(&c.entry)
	c.ep.Abort()
	c.s.flows.Release(c.h)
}

// end stops notifications and takes the connection off the books, once.
func (c *conn) end() bool {
	if c.closed.Swap(true) {
		return false
	}
	c.wq.EventUnregister(&c.entry)
	c.notifier.Store(nil)
	c.s.counters.established.Add(-1)
	c.endBulk()
	c.receiveGrown.end(&c.s.budget)
	c.sendGrown.end(&c.s.budget)
	return true
}
