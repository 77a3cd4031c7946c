package netstack_test

import (
	"bytes"
	"errors"
	"io"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

// simConn is what a player needs of either side's connection.
type simConn interface {
	ReadTo(w io.Writer) (int64, error) // flow.ErrWouldBlock, io.EOF, or a failure
	WriteFrom(p flow.Payload) (int64, error)
	CloseWrite() error
	Close() error
	Abort()
}

// clientConn is a client's endpoint.
type clientConn struct {
	ep    tcpip.Endpoint
	wq    waiter.Queue
	entry waiter.Entry

	connected bool
}

func (c *clientConn) connecting() bool {
	return tcp.EndpointState(c.ep.State()) == tcp.StateSynSent
}

func (c *clientConn) ReadTo(w io.Writer) (int64, error) {
	r, err := c.ep.Read(w, tcpip.ReadOptions{})
	return int64(r.Count), netstack.Translate(err)
}

func (c *clientConn) WriteFrom(p flow.Payload) (int64, error) {
	n, err := c.ep.Write(p, tcpip.WriteOptions{})
	return n, netstack.Translate(err)
}

func (c *clientConn) CloseWrite() error {
	err := c.ep.Shutdown(tcpip.ShutdownWrite)
	if _, ok := err.(*tcpip.ErrNotConnected); ok { // any more, which a read says why
		_, why := c.ReadTo(io.Discard)
		return why
	}
	return netstack.Translate(err)
}
func (c *clientConn) Abort() { c.ep.Abort() }

func (c *clientConn) Close() error {
	c.ep.Close()
	return nil
}

// player plays one end of a connection by its part. All but wake is for the
// simulation's goroutine.
type player struct {
	s    *sim
	c    *script
	name string
	part part
	conn simConn
	out  stream
	in   stream

	sent, received int
	begun          time.Duration
	resting        time.Duration // until then it writes nothing; 0: it has not rested yet

	eof    bool  // the other's stream has ended in order
	shut   bool  // this one's has
	closed bool  // in order, or after an error
	gaveUp bool  // it ended its connection without waiting for the rest
	err    error // what it was told
	queued bool  // in the list of those to be played; guarded by s.mu
}

// Notify implements flow.Notifier, and NotifyEvent waiter.EventListener.
func (p *player) Notify()                      { p.s.wake(p) }
func (p *player) NotifyEvent(waiter.EventMask) { p.s.wake(p) }

// over reports whether it has nothing left to do.
func (p *player) over() bool { return p.closed || p.gaveUp }

// play goes on as far as it can.
func (p *player) play() {
	p.s.mu.Lock()
	p.queued = false
	p.s.mu.Unlock()
	if c, ok := p.conn.(*clientConn); p.conn == nil || p.over() || ok && c.connecting() {
		return
	} else if ok && !c.connected {
		c.connected = true
		c.ep.SocketOptions().SetKeepAlive(true) // gVisor counts from here
	}
	p.receive()
	p.transmit()
	p.finish()
}

func (p *player) receive() {
	if wait := p.begun + p.part.slow - p.s.clock.elapsed(); wait > 0 {
		p.s.later(wait, p.play)
		return
	}
	for p.err == nil && !p.eof && !p.tired() {
		_, err := p.conn.ReadTo(p)
		switch {
		case errors.Is(err, flow.ErrWouldBlock):
			return
		case errors.Is(err, io.EOF):
			p.eof = true
		case err != nil:
			p.err = err
		}
	}
}

// Write takes bytes that were received and compares them.
func (p *player) Write(b []byte) (int, error) {
	if !p.in.matches(p.received, b) {
		p.s.fail("%s received something else than what was sent, within bytes %d to %d", p.name, p.received, p.received+len(b))
	}
	p.received += len(b)
	return len(b), nil
}

func (p *player) transmit() {
	if p.received < p.part.after {
		return
	}
	for p.err == nil && !p.shut && p.sent < p.part.send && !p.tired() {
		most := p.part.send
		if p.part.rest > 0 && p.sent <= p.part.restAt {
			now := p.s.clock.elapsed()
			switch {
			case p.sent < p.part.restAt:
				most = p.part.restAt
			case p.resting == 0:
				p.resting = now + p.part.rest
				p.s.later(p.part.rest, p.play)
				return
			case now < p.resting:
				return
			}
		}
		n, err := p.conn.WriteFrom(bytes.NewReader(p.out.at(p.sent, min(most-p.sent, p.part.chunk))))
		p.sent += int(n)
		if errors.Is(err, flow.ErrWouldBlock) {
			return
		}
		p.err = err
	}
}

// tired reports whether it is to give up by now.
func (p *player) tired() bool {
	return (p.part.end == endAbort || p.part.end == endQuit) && p.sent+p.received >= p.part.at
}

func (p *player) finish() {
	if p.err == nil && !p.tired() && !p.shut && p.sent == p.part.send && (p.eof || p.part.end != endLast) {
		p.shut = true
		p.err = p.conn.CloseWrite()
	}
	switch {
	case p.err != nil, p.shut && p.eof:
		p.closed = true
		_ = p.conn.Close()
	case p.tired():
		p.gaveUp = true
		if p.part.end == endAbort {
			p.conn.Abort()
		} else {
			_ = p.conn.Close()
		}
	default:
		return
	}
	p.s.ended(p)
}

// stream is bytes that can be told from each other's and from their own at other
// places.
type stream struct{ start int }

// noise is what all streams are cut from: its length is prime, so that no power of
// two, and hence no buffer, hides a shift.
var noise = func() []byte {
	b := make([]byte, 131_071)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x >> 11)
	}
	return b
}()

// at returns up to n bytes from place i on.
func (s stream) at(i, n int) []byte {
	from := (s.start + i) % len(noise)
	return noise[from:min(from+n, len(noise))]
}

func (s stream) matches(i int, b []byte) bool {
	for len(b) > 0 {
		want := s.at(i, len(b))
		if !bytes.Equal(b[:len(want)], want) {
			return false
		}
		b, i = b[len(want):], i+len(want)
	}
	return true
}
