package netstack

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

var errAnswered = errors.New("the request was answered before")

// attempt is a connection from its SYN, or from the end of its handshake if its
// upstream is dialled after that, until its handler has it. It implements
// flow.LaterRequest.
type attempt struct {
	s    *Stack
	id   flow.ID
	h    minisock.Handle
	slot uint32
	rtt  uint8     // of the handshake, when it is done
	task loop.Task // of opened

	mu       sync.Mutex
	held     []*stack.PacketBuffer // what came while the endpoint was made
	conn     *conn                 // being made, or ready
	ready    bool                  // conn is
	answered bool                  // one of Accept, Refuse and Drop was called
	late     bool                  // its upstream is dialled after the handshake
	done     func(flow.Conn, error)
	err      error // why there will be no connection
}

// attempts finds them by the number that a record holds: Owner of a minisock.Result.
// 0 is nobody's.
type attempts struct {
	mu   sync.Mutex
	all  []*attempt
	free []uint32
}

func (t *attempts) add(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		a.slot = t.free[n-1]
		t.free = t.free[:n-1]
		t.all[a.slot-1] = a
		return
	}
	t.all = append(t.all, a)
	a.slot = uint32(len(t.all)) //nolint:gosec // bounded by the table's records
}

// get returns the attempt that h is the record of, nil if there is none.
func (t *attempts) get(slot uint32, h minisock.Handle) *attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slot == 0 || int(slot) > len(t.all) {
		return nil
	}
	if a := t.all[slot-1]; a != nil && a.h == h {
		return a
	}
	return nil
}

// remove reports whether a was there.
func (t *attempts) remove(a *attempt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[a.slot-1] != a {
		return false
	}
	t.all[a.slot-1] = nil
	t.free = append(t.free, a.slot)
	return true
}

// snapshot lists those that are under way.
func (t *attempts) snapshot() []*attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*attempt, 0, len(t.all)-len(t.free))
	for _, a := range t.all {
		if a != nil {
			list = append(list, a)
		}
	}
	return list
}

// len is how many are under way.
func (t *attempts) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all) - len(t.free)
}

// newAttempt makes the record's attempt, nil if the stack takes no more.
func (s *Stack) newAttempt(h minisock.Handle, id flow.ID, late bool) *attempt {
	if int(s.counters.established.Load())+s.attempts.len() >= s.opts.MaxConnections {
		s.counters.connLimit.Add(1)
		return nil
	}
	a := &attempt{s: s, id: id, h: h, late: late}
	a.task.Init(loop.RunnerFunc(a.opened))
	s.attempts.add(a)
	s.flows.SetOwner(h, a.slot)
	return a
}

// Dial implements link.Owner.
func (s *Stack) Dial(r minisock.Result, p *offload.Packet) {
	a := s.newAttempt(r.Handle, flow.ID{Protocol: flow.TCP, Client: client(p), Destination: destination(p)}, false)
	if a == nil || !s.serve(a) {
		s.flows.Refuse(r.Handle)
	}
}

// serve hands an attempt to the handler, unless the stack is closed.
func (s *Stack) serve(a *attempt) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		a.leave()
		return false
	}
	s.handlers.Add(1)
	s.mu.Unlock()
	if h, ok := s.handler.(flow.Starter); ok {
		h.StartTCP(s.ctx, a)
		s.handlers.Done()
		return true
	}
	go func() {
		defer s.handlers.Done()
		// A handler that answers nothing would keep its record until that
		// expires.
		defer a.Drop()
		s.handler.HandleTCP(s.ctx, a)
	}()
	return true
}

// ID implements flow.Request.
func (a *attempt) ID() flow.ID { return a.id }

// Accept implements flow.Request.
func (a *attempt) Accept() (flow.Conn, error) {
	type result struct {
		c   flow.Conn
		err error
	}
	ended := make(chan result, 1)
	a.AcceptLater(func(c flow.Conn, err error) { ended <- result{c, err} })
	r := <-ended
	return r.c, r.err
}

// AcceptLater implements flow.LaterRequest.
func (a *attempt) AcceptLater(done func(flow.Conn, error)) {
	a.mu.Lock()
	switch {
	case a.answered:
		a.mu.Unlock()
		done(nil, a.failure(errAnswered))
	case a.err != nil:
		a.answered = true
		a.mu.Unlock()
		done(nil, a.failure(a.err))
	case a.ready:
		a.answered = true
		a.mu.Unlock()
		a.leave()
		a.give(done)
	default:
		a.answered, a.done = true, done
		a.mu.Unlock()
		if a.s.ctx.Err() != nil {
			a.fail(net.ErrClosed)
		} else if !a.s.flows.Answer(a.h, a.s.link.Now()) && a.s.flows.State(a.h) == minisock.Free {
			a.fail(unix.ECONNRESET)
		}
	}
}

// leave takes the attempt off the books, once.
func (a *attempt) leave() {
	if a.s.attempts.remove(a) && a.late {
		a.s.counters.late.Add(-1)
	}
}

// give hands the connection over.
func (a *attempt) give(done func(flow.Conn, error)) {
	a.s.counters.accepted.Add(1)
	done(a.conn, nil)
}

func (a *attempt) failure(err error) error {
	return &flow.Error{Op: "accept", ID: a.id, Err: err}
}

// Refuse implements flow.Request.
func (a *attempt) Refuse() {
	if a.giveUp() {
		a.s.counters.refused.Add(1)
		a.s.flows.Refuse(a.h)
	}
}

// Drop implements flow.Request.
func (a *attempt) Drop() {
	if a.giveUp() {
		a.s.counters.dropped.Add(1)
		a.s.flows.Drop(a.h)
	}
}

// giveUp answers the attempt for somebody who does not want it, and reports whether
// it was unanswered and had not failed. A connection that stands is reset.
func (a *attempt) giveUp() bool {
	a.mu.Lock()
	first := !a.answered && a.err == nil
	a.answered = true
	ready := a.ready
	a.mu.Unlock()
	if first && ready {
		a.conn.Abort()
	}
	if first {
		a.leave()
	}
	return first
}

// fail ends an attempt that comes to nothing, with the endpoint that may be being made
// for it.
func (a *attempt) fail(err error) {
	a.mu.Lock()
	if a.ready || a.err != nil {
		a.mu.Unlock()
		return
	}
	a.err = err
	done, held := a.done, a.held
	a.done, a.held = nil, nil
	a.mu.Unlock()
	for _, pkt := range held {
		pkt.DecRef()
	}
	a.discard()
	a.leave()
	a.s.counters.failed.Add(1)
	if done != nil {
		done(nil, a.failure(err))
	}
}

// discard resets the endpoint that is being made, if nobody has it yet.
func (a *attempt) discard() {
	a.mu.Lock()
	c := a.conn
	a.mu.Unlock()
	if c != nil && c.attempt.CompareAndSwap(a, nil) {
		c.discard()
	}
}

// Emit implements minisock.Sink.
func (s *Stack) Emit(packet []byte, queue uint16) { s.link.Emit(packet, queue) }

// Gone implements minisock.Sink.
func (s *Stack) Gone(h minisock.Handle, owner uint32, why minisock.Cause) {
	a := s.attempts.get(owner, h)
	if a == nil {
		return
	}
	if why == minisock.HalfOpenExpired || why == minisock.DialExpired || why == minisock.CreateExpired {
		a.fail(unix.ETIMEDOUT)
		return
	}
	a.fail(unix.ECONNRESET)
}
