package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// flowState is how far a reactorFlow has come. All of it is the loop's.
type flowState uint8

const (
	flowNew       flowState = iota
	flowDialling            // the socket is being connected
	flowAccepting           // the client's handshake is awaited
	flowOpen                // relaying
	flowDead                // closed at both ends
)

// stepBytes bounds what one flow moves in one direction before others get their
// turn.
const stepBytes = 256 << 10

// reactorFlow is all that an open connection owns besides the stack's endpoint and
// its socket, in 256 bytes.
type reactorFlow struct {
	re      *reactor
	ctx     *context.Context // the stack's, for the reason of an end
	opening *opening         // nil from flowOpen on
	conn    flow.Conn        // valid from flowOpen on
	task    loop.Task
	source  loop.Source
	timer   loop.Timer

	prev, next *reactorFlow // ring of all flows

	fd    int32
	state flowState

	// What edge-triggered epoll said last and nothing has disproved since.
	readable, writable, hangup bool

	halves
	kept  bool // the kernel probes the upstream
	reset bool // a write to the socket was told of a reset
	bulk  bool // the last read of the socket was a full one

	held     *held // nil while nothing ever was
	upstream netip.AddrPort
	up, down uint64 // payload bytes

	start time.Duration // since the reactor began
	// Times since start.
	last time.Duration // when bytes last moved
	due  time.Duration // of timer, never if it is not set
}

// opening is what a flow has besides until it is open.
type opening struct {
	req   flow.LaterRequest
	local netip.AddrPort // valid iff state is flowDialling: the socket's own
	offer atomic.Pointer[offer]
}

// held is what a flow has besides once a side has not taken all.
type held struct {
	unsent []byte // taken from the client, not yet by the socket
	stash  []byte // read from the socket, not yet taken by the client

	// Times since the flow's start.
	upSince   time.Duration // valid iff upFull: when the socket last took any
	downSince time.Duration // valid iff downFull: when the client last took any
	upQueue   int64         // valid iff upFull: what the socket held then
}

// sock is the socket's descriptor, as system calls have it.
func (f *reactorFlow) sock() uintptr { return uintptr(f.fd) } //nolint:gosec // an open one is not negative

// hold returns what the flow holds, to be added to.
func (f *reactorFlow) hold() *held {
	if f.held == nil {
		f.held = &held{}
	}
	return f.held
}

// Notify implements flow.Notifier. It runs under the stack's locks.
func (f *reactorFlow) Notify() { f.re.loop.Post(&f.task) }

// RunTask implements loop.Runner: the flow begins, or there is news of the client's
// side.
func (f *reactorFlow) RunTask() {
	switch f.state {
	case flowNew:
		f.dial()
	case flowAccepting:
		f.take()
	case flowOpen:
		f.step()
	case flowDead:
		if f.opening == nil {
			return
		}
		if o := f.opening.offer.Swap(nil); o != nil && o.conn != nil {
			o.conn.Abort()
		}
	case flowDialling:
	}
}

// HandleEvents implements loop.Handler: news of the socket.
func (f *reactorFlow) HandleEvents(ev uint32) {
	if f.state == flowDialling {
		f.decide()
		return
	}
	if ev&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		f.readable = true
	}
	if ev&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		f.hangup = true
	}
	if ev&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		f.writable = true
	}
	if f.state == flowOpen {
		f.step()
	}
}

// decide ends the dial if the kernel has decided it.
func (f *reactorFlow) decide() {
	if done, err := connected(int(f.fd)); done {
		f.endDial(err)
	}
}

// open begins to relay.
func (f *reactorFlow) open() {
	re := f.re
	f.state = flowOpen
	if re.stopping {
		f.finish(flow.ReasonShutdown, true)
		return
	}
	f.last, f.due = f.now(), never
	f.arm()
	f.conn.SetNotifier(f)
	// Edges that are there already are reported by the next epoll_wait.
	const events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff
	if err := re.loop.Add(&f.source, int(f.fd), events); err != nil {
		f.finish(flow.ReasonError, true)
		return
	}
	f.writable = true
	f.step() // data may have come before the notifier was set
}

// step moves what can be moved, both ways.
func (f *reactorFlow) step() {
	if f.conn.Broken() {
		f.finish(flow.ReasonClientReset, true)
		return
	}
	if !f.upDone {
		f.stepUp()
	}
	if f.refused {
		f.discard()
	}
	if f.state == flowOpen && !f.downDone {
		f.stepDown()
	}
	if f.state == flowOpen && f.over() {
		// A client whose bytes the upstream did not take is told so by RST.
		f.finish(flow.ReasonDone, f.refused)
	}
}

// discard takes what the client still sends to nowhere. A client that reads only
// when it has sent everything would otherwise never come to hear why the upstream
// takes no more. No byte here counts as a sign of life, so the drain timeout
// bounds it.
func (f *reactorFlow) discard() {
	for budget := stepBytes; budget > 0; {
		n, err := f.conn.ReadTo(io.Discard)
		if err != nil {
			return
		}
		budget -= int(n)
	}
	f.re.loop.Post(&f.task)
}

// stepUp sends what the client sent to the upstream.
func (f *reactorFlow) stepUp() {
	sent := int64(0)
	for budget := stepBytes; f.writable; {
		n, err := f.sendOnce()
		w := &f.re.writer
		budget -= int(n)
		sent += w.sent
		switch {
		case w.err != 0:
			// The upstream takes no more, but what it sent is still to be
			// read: a server that answers early and closes must be heard.
			f.readable = true
			// The kernel tells a reset once, to whoever asks first; a read
			// after that finds an end of stream like any other. EPIPE is no
			// reset: it follows the upstream's FIN.
			f.reset = w.err != unix.EPIPE
			f.refused = true
			f.endHalf(&f.upDone)
			return
		case w.full:
			f.writable = false
			if h := f.hold(); f.stall(&f.upFull, &h.upSince, sent > 0) {
				h.upQueue = unacknowledged(f.sock())
			}
			return
		case errors.Is(err, flow.ErrWouldBlock):
			f.upFull = false
			return
		case errors.Is(err, io.EOF):
			_ = unix.Shutdown(int(f.fd), unix.SHUT_WR)
			f.endHalf(&f.upDone)
			return
		case err != nil:
			f.finish(flow.ReasonClientReset, true)
			return
		case budget <= 0:
			f.upFull = false
			f.re.loop.Post(&f.task)
			return
		}
	}
}

// sendOnce sends what was left behind and then what the client sent since, and
// returns how many bytes the client's side gave and why it gave no more. What the
// socket did not take is either still there or left behind.
func (f *reactorFlow) sendOnce() (n int64, err error) {
	w := &f.re.writer
	var left []byte
	if h := f.held; h != nil {
		left, h.unsent = h.unsent, nil
	}
	w.begin(f.sock(), left)
	if w.flush() {
		n, err = f.conn.ReadTo(w)
		f.moved(&f.up, &f.re.tcp.bytesUp, n)
		w.flush()
	}
	if len(w.buf) > 0 && w.err == 0 {
		f.hold().unsent = append([]byte(nil), w.buf...)
	}
	return n, err
}

// stepDown passes on to the client what the upstream sent.
func (f *reactorFlow) stepDown() {
	first := f.down
	for budget := stepBytes; f.readable; {
		before := f.down
		switch s := f.readOnce(); s {
		case downMore:
		case downWait:
			f.readable, f.downFull = false, false
			return
		case downFull: // the client's side will notify
			f.stall(&f.downFull, &f.hold().downSince, f.down > first)
			return
		case downEOF:
			if f.reset {
				f.finish(flow.ReasonUpstreamReset, true)
				return
			}
			_ = f.conn.CloseWrite()
			f.endHalf(&f.downDone)
			return
		case downFailed:
			f.finish(flow.ReasonUpstreamReset, true)
			return
		case downClient:
			f.finish(flow.ReasonClientReset, true)
			return
		}
		if budget -= int(f.down - before); budget <= 0 { //nolint:gosec // bounded by bigRead
			f.downFull = false
			f.re.loop.Post(&f.task)
			return
		}
	}
}

// readOnce moves bytes of the socket once.
func (f *reactorFlow) readOnce() downState {
	if h := f.held; h != nil && len(h.stash) > 0 {
		b := h.stash
		h.stash = nil
		return f.pass(b)
	}
	if f.bulk {
		if avail, err := unix.IoctlGetInt(int(f.fd), unix.SIOCINQ); err == nil && avail >= smallRead {
			return f.readBulk(min(avail, bigRead))
		}
		f.bulk = false
	}
	b := f.re.scratch[:]
	n, e := recv(f.sock(), b)
	switch {
	case e == unix.EAGAIN:
		return downWait
	case e != 0:
		return downFailed
	case n == 0:
		return downEOF
	}
	f.bulk = n == len(b)
	s := f.pass(b[:n])
	if s == downMore && !f.bulk && !f.hangup {
		return downWait // a short read has drained the socket (epoll(7))
	}
	return s
}

// readBulk lets the stack read n bytes of the socket into its own memory.
func (f *reactorFlow) readBulk(n int) downState {
	p := &f.re.sock
	*p = sockPayload{fd: f.sock(), n: n}
	moved, err := f.conn.WriteFrom(p)
	f.moved(&f.down, &f.re.tcp.bytesDown, moved)
	if p.err != 0 {
		return downFailed
	}
	return afterWrite(err)
}

// pass gives b to the client and keeps a copy of what it does not take.
func (f *reactorFlow) pass(b []byte) downState {
	for len(b) > 0 {
		f.re.slice.b = b
		n, err := f.conn.WriteFrom(&f.re.slice)
		f.moved(&f.down, &f.re.tcp.bytesDown, n)
		b = b[n:]
		if s := afterWrite(err); s != downMore {
			if s == downFull {
				f.hold().stash = append([]byte(nil), b...)
			}
			return s
		}
	}
	return downMore
}

// moved counts n bytes.
func (f *reactorFlow) moved(flow *uint64, all *atomic.Uint64, n int64) {
	if n > 0 {
		*flow += uint64(n)
		all.Add(uint64(n))
		f.last = f.now()
	}
}

// now is the time since start.
func (f *reactorFlow) now() time.Duration { return time.Since(f.re.began) - f.start }

// stall notes that one side is full, and took some bytes before that or none; it
// reports whether that is news.
func (f *reactorFlow) stall(full *bool, since *time.Duration, some bool) bool {
	if *full && !some {
		return false
	}
	*full, *since = true, f.now()
	f.arm()
	return true
}

// endHalf ends one direction; the other has the drain timeout from its last byte
// on.
func (f *reactorFlow) endHalf(done *bool) {
	*done = true
	f.last = f.now()
	f.arm()
}

// Expire implements loop.Expirer: the flow has been idle, or may have been.
func (f *reactorFlow) Expire() {
	if f.state == flowDialling {
		f.endDial(unix.ETIMEDOUT)
		return
	}
	f.due = never
	f.keep()
	if at, _ := f.deadline(); at <= f.now() && f.interest()&(clientRoom|upstreamRoom) != 0 {
		// Neither side tells of room before a good part of its buffer is
		// free, so one that takes little by little is asked.
		f.step()
		if f.state != flowOpen {
			return
		}
		if n := unacknowledged(f.sock()); n < f.held.upQueue {
			f.held.upQueue, f.held.upSince = n, f.now()
		}
	}
	if at, reason := f.deadline(); at <= f.now() {
		f.finish(reason, true)
		return
	}
	f.arm()
}

// keepAfter is how long a connection stands before the kernel is asked to probe its
// upstream.
const keepAfter = time.Second

// keep lets the kernel probe the upstream of a connection that has stood for a while.
func (f *reactorFlow) keep() {
	if !f.kept && f.now() >= keepAfter {
		f.kept = true
		_ = f.re.dial.keepalive.set(int(f.fd)) // refused only for values that Validate refuses
	}
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// deadline returns when the flow ends and why, if nothing moves any more.
func (f *reactorFlow) deadline() (time.Duration, flow.CloseReason) {
	o := &f.re.opts
	at, reason := after(f.last, o.IdleTimeout), flow.ReasonIdle
	if f.halfClosed() {
		at, reason = f.last+o.DrainTimeout, flow.ReasonDrain
	}
	waits, h := f.interest(), f.held
	if waits&upstreamRoom != 0 && after(h.upSince, o.StallTimeout) < at {
		at, reason = after(h.upSince, o.StallTimeout), flow.ReasonUpstreamStalled
	}
	if waits&clientRoom != 0 && after(h.downSince, o.StallTimeout) < at {
		at, reason = after(h.downSince, o.StallTimeout), flow.ReasonClientStalled
	}
	return at, reason
}

// after is t and d later; negative d is never.
func after(t, d time.Duration) time.Duration {
	if d < 0 {
		return never
	}
	return t + d
}

// arm sets the timer to the deadline, unless it fires before that anyway.
func (f *reactorFlow) arm() {
	at, _ := f.deadline()
	if !f.kept && f.re.dial.keepalive.idle >= 0 {
		at = min(at, keepAfter)
	}
	if at < f.due {
		f.due = at
		f.re.loop.Set(&f.timer, at-f.now())
	}
}

// finish closes both sides, by RST if abort.
func (f *reactorFlow) finish(reason flow.CloseReason, abort bool) {
	re := f.re
	f.state = flowDead
	re.loop.Stop(&f.timer)
	re.loop.Forget(&f.source)
	f.unlink()
	if abort {
		f.conn.Abort()
	} else {
		_ = f.conn.Close()
	}
	f.closeSocket(abort)
	f.held = nil
	reason = endReason(*f.ctx, reason)
	re.tcp.end(reason)
	re.trace(Record{ID: f.conn.ID(), Upstream: f.upstream, Result: DialOK, Reason: reason, Up: f.up, Down: f.down, Duration: f.now()})
}
