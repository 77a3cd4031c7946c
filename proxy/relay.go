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

	up   upHalf
	down downHalf

	last   atomic.Int64 // when bytes last moved, since start, in nanoseconds
	start  time.Time
	halves atomic.Int32 // directions that are over
	broken atomic.Bool  // the client's side failed

	mu    sync.Mutex
	timer *time.Timer // guarded by mu; nil without timeouts and after the end
	over  bool        // guarded by mu: finish was called

	once   sync.Once // of finish
	reason flow.CloseReason
}

func newRelay(d *direct, c flow.Conn, u *upstream) *relay {
	r := &relay{conn: c, sock: u, drop: d.opts.IdleTimeout, wait: d.opts.DrainTimeout, start: time.Now()}
	r.up.init(r, &d.tcp)
	r.down.init(r, &d.tcp)
	return r
}

// run moves bytes until both directions are over and returns why they are.
func (r *relay) run() flow.CloseReason {
	r.conn.SetNotifier(r)
	if r.drop >= 0 {
		r.mu.Lock()
		r.timer = time.AfterFunc(r.drop, r.expire)
		r.mu.Unlock()
	}
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(r.wait, r.expire)
		return
	}
	r.timer.Reset(r.wait)
}

func (r *relay) bothDone() bool { return r.halves.Load() == 2 }

// expire ends an idle relay, or waits for the rest of the time.
func (r *relay) expire() {
	if reason, idle := r.silent(); idle {
		r.finish(reason, true)
	}
}

// silent reports whether no byte moved for the time that holds now, and sets the
// timer for the rest of it if one did. The lock keeps the timer that a direction
// sets at its end.
func (r *relay) silent() (flow.CloseReason, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit, reason := r.drop, flow.ReasonIdle
	if r.halves.Load() > 0 {
		limit, reason = r.wait, flow.ReasonDrain
	}
	rest := limit - (time.Since(r.start) - time.Duration(r.last.Load()))
	if rest > 0 && r.timer != nil {
		r.timer.Reset(rest)
	}
	return reason, rest <= 0
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
