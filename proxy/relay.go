package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tungate/tungate/flow"
)

// relay joins a client's connection and an upstream socket. Its two directions
// run on a goroutine each and share only what is declared here.
type relay struct {
	conn flow.Conn
	sock *upstream
	drop time.Duration // idle timeout, negative for none
	wait time.Duration // drain timeout
	hold time.Duration // stall timeout, negative for none

	up   upHalf
	down downHalf

	last   atomic.Int64 // when bytes last moved, since start, in nanoseconds
	start  time.Time
	halves atomic.Int32 // directions that are over
	broken atomic.Bool  // the client's side failed

	mu    sync.Mutex    // guards what follows
	timer *time.Timer   // nil until something has a deadline, and after the end
	due   time.Duration // when timer fires, since start; valid iff timer is set
	asked bool          // the sides were asked once more whether they take bytes
	over  bool          // finish was called

	once   sync.Once // of finish
	reason flow.CloseReason
}

func newRelay(d *direct, c flow.Conn, u *upstream) *relay {
	r := &relay{conn: c, sock: u, drop: d.opts.IdleTimeout, wait: d.opts.DrainTimeout, hold: d.opts.StallTimeout, start: time.Now()}
	r.up.init(r, &d.tcp)
	r.down.init(r, &d.tcp)
	return r
}

// run moves bytes until both directions are over and returns why they are.
func (r *relay) run() flow.CloseReason {
	r.conn.SetNotifier(r)
	r.arm()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.down.run()
	}()
	r.up.run()
	<-done
	// A client whose bytes the upstream did not take is told so by RST.
	r.finish(flow.ReasonDone, r.up.w.err != 0)
	return r.reason
}

// Notify implements flow.Notifier. It runs under the stack's locks.
func (r *relay) Notify() {
	wake(r.up.ready)
	wake(r.down.ready)
	// A direction that waits for the upstream would not see the client's
	// reset, so its wait ends; closing a file must not happen here.
	if r.conn.Broken() && r.broken.CompareAndSwap(false, true) {
		_ = r.sock.f.SetDeadline(time.Unix(1, 0))
	}
}

// interrupted is called by a direction whose wait for the socket was ended, by
// Notify or because finish closed the socket.
func (r *relay) interrupted() {
	if r.broken.Load() {
		r.finish(flow.ReasonClientReset, true)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// touch notes that bytes moved now.
func (r *relay) touch() { r.last.Store(int64(time.Since(r.start))) }

// halfDone is called by each direction at its end.
func (r *relay) halfDone() {
	if r.halves.Add(1) != 1 {
		wake(r.up.ready)
		return
	}
	// The other direction has the drain timeout from its last byte on.
	r.touch()
	r.arm()
}

func (r *relay) bothDone() bool { return r.halves.Load() == 2 }

// sinceStart is the clock of a relay.
func (r *relay) sinceStart() time.Duration { return time.Since(r.start) }

// deadline returns when the relay ends and why, if nothing moves any more.
func (r *relay) deadline() (time.Duration, flow.CloseReason) {
	last := time.Duration(r.last.Load())
	at, reason := after(last, r.drop), flow.ReasonIdle
	if r.halves.Load() > 0 {
		at, reason = last+r.wait, flow.ReasonDrain
	}
	if since, full := r.up.stall.since(); full && after(since, r.hold) < at {
		at, reason = after(since, r.hold), flow.ReasonUpstreamStalled
	}
	if since, full := r.down.stall.since(); full && after(since, r.hold) < at {
		at, reason = after(since, r.hold), flow.ReasonClientStalled
	}
	return at, reason
}

// arm sets the timer to the deadline, unless it fires before that anyway.
func (r *relay) arm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, _ := r.deadline()
	r.setLocked(at)
}

func (r *relay) setLocked(at time.Duration) {
	switch {
	case r.over || at == never:
	case r.timer == nil:
		r.due = at
		r.timer = time.AfterFunc(at-r.sinceStart(), r.expire)
	case at < r.due:
		r.due = at
		r.timer.Reset(at - r.sinceStart())
	}
}

// expire ends a relay that is silent or stalled, or waits for the rest of the time.
func (r *relay) expire() {
	if reason, over := r.silent(); over {
		r.finish(reason, true)
	}
}

// askAgain is how long a side that took nothing has when it is asked once more.
const askAgain = 100 * time.Millisecond

// silent reports whether the deadline has come, and sets the timer for the rest if
// it has not. The lock keeps the timer that a direction sets at its end.
func (r *relay) silent() (flow.CloseReason, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = never
	at, reason := r.deadline()
	now := r.sinceStart()
	stalled := reason == flow.ReasonClientStalled || reason == flow.ReasonUpstreamStalled
	switch {
	case at > now:
		r.asked = false
		r.setLocked(at)
		return reason, false
	case stalled && !r.asked && !r.over:
		// Neither side tells of room before a good part of its buffer is free,
		// so one that takes little by little is asked.
		r.asked = true
		r.up.progress()
		wake(r.down.ready)
		r.setLocked(now + askAgain)
		return reason, false
	}
	return reason, true
}

// stall is when one direction began to wait for a side that takes nothing.
type stall struct{ at atomic.Int64 } // nanoseconds since the relay's start, 0 none

// begin notes that the side is full, and took some bytes before that or none; it
// reports whether that is news.
func (s *stall) begin(now time.Duration, some bool) bool {
	if s.at.Load() != 0 && !some {
		return false
	}
	s.at.Store(max(1, int64(now)))
	return true
}

func (s *stall) end() {
	if s.at.Load() != 0 {
		s.at.Store(0)
	}
}

func (s *stall) since() (time.Duration, bool) {
	at := s.at.Load()
	return time.Duration(at), at != 0
}

// finish closes both sides, by RST if abort; the first call's reason stays. Both
// directions then end by themselves. Every call returns when both are closed.
func (r *relay) finish(reason flow.CloseReason, abort bool) {
	r.once.Do(func() {
		r.reason = reason
		r.stopTimer()
		if abort {
			r.conn.Abort()
			r.sock.abort()
		} else {
			_ = r.conn.Close()
			_ = r.sock.f.Close()
		}
		wake(r.up.ready)
		wake(r.down.ready)
	})
}

func (r *relay) stopTimer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}
