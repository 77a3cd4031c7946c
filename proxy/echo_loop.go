package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// echoReactor echoes TCP connections on an event loop: like the reactor's, one that
// is open and silent has a struct and nothing else.
type echoReactor struct {
	*echo
	loop *loop.Loop

	// The loop's own.
	scratch  [gatherSize]byte
	slice    slicePayload
	flows    echoFlow // head of the ring of all flows
	stopping bool
}

func newEchoReactor(e *echo, l *loop.Loop) *echoReactor {
	re := &echoReactor{echo: e, loop: l}
	re.flows.prev, re.flows.next = &re.flows, &re.flows
	return re
}

// HandleTCP implements flow.Handler.
func (re *echoReactor) HandleTCP(ctx context.Context, req flow.Request) {
	re.StartTCP(ctx, flow.Later(req))
}

// StartTCP implements flow.Starter.
func (re *echoReactor) StartTCP(ctx context.Context, req flow.LaterRequest) {
	req.AcceptLater(func(c flow.Conn, err error) {
		if err == nil {
			re.begin(ctx, c)
		}
	})
}

// begin makes the connection the loop's.
func (re *echoReactor) begin(ctx context.Context, c flow.Conn) {
	f := &echoFlow{re: re, ctx: ctx, conn: c, start: time.Now(), due: never}
	f.task.Init(f)
	f.timer.Init(f)
	re.tcp.begin()
	if !re.loop.Post(&f.task) {
		c.Abort()
		re.tcp.end(flow.ReasonShutdown)
	}
}

// Run implements Handler.
func (re *echoReactor) Run(ctx context.Context) error {
	<-ctx.Done()
	done := make(chan struct{})
	var task loop.Task
	task.Init(loop.RunnerFunc(func() {
		defer close(done)
		re.stopping = true
		for f := re.flows.next; f != &re.flows; f = re.flows.next {
			f.finish(flow.ReasonShutdown, true)
		}
	}))
	if re.loop.Post(&task) {
		<-done
	}
	return nil
}

// echoFlow is all that an open connection owns besides the stack's endpoint.
type echoFlow struct {
	re    *echoReactor
	ctx   context.Context //nolint:containedctx // the stack's, for the reason of an end
	conn  flow.Conn
	task  loop.Task
	timer loop.Timer

	prev, next *echoFlow // ring of open flows; nil before and after

	rest  []byte // read, and not taken back by the client, which is full then
	moved uint64
	dead  bool

	start time.Time
	last  time.Duration // when bytes last went back, since start
	since time.Duration // valid iff rest is not empty: when the client last took any
	due   time.Duration // of timer, never if it is not set
}

// Notify implements flow.Notifier. It runs under the stack's locks.
func (f *echoFlow) Notify() { f.re.loop.Post(&f.task) }

// RunTask implements loop.Runner: the flow begins, or there is news of the client.
func (f *echoFlow) RunTask() {
	switch {
	case f.dead:
	case f.next == nil:
		f.open()
	default:
		f.step()
	}
}

func (f *echoFlow) open() {
	head := &f.re.flows
	f.prev, f.next = head.prev, head
	f.prev.next, head.prev = f, f
	if f.re.stopping {
		f.finish(flow.ReasonShutdown, true)
		return
	}
	f.last = f.now()
	f.arm()
	f.conn.SetNotifier(f)
	f.step() // data may have come before the notifier was set
}

// step echoes until a call would block or fails, or others have their turn. A write
// that ends in the middle of what was read leaves the rest for the next, so that
// the stack gets long ones.
func (f *echoFlow) step() {
	if f.conn.Broken() {
		f.finish(flow.ReasonClientReset, true)
		return
	}
	if !f.writeRest() {
		return
	}
	held := 0
	for budget := stepBytes; ; {
		w := fill{b: f.re.scratch[:held]}
		_, readErr := f.conn.ReadTo(&w)
		if len(w.b) == 0 {
			f.ended(readErr)
			return
		}
		n, err := f.write(w.b)
		held = copy(f.re.scratch[:], w.b[n:])
		budget -= n
		if err != nil || budget <= 0 {
			f.keep(f.re.scratch[:held])
		}
		switch {
		case errors.Is(err, flow.ErrWouldBlock):
			return // the client's side will notify
		case err != nil:
			f.finish(flow.ReasonClientReset, true)
			return
		case budget <= 0:
			f.re.loop.Post(&f.task)
			return
		}
	}
}

// writeRest writes what was kept; false if some of it still is.
func (f *echoFlow) writeRest() bool {
	some := false
	for len(f.rest) > 0 {
		n, err := f.write(f.rest)
		f.rest = f.rest[n:]
		some = some || n > 0
		switch {
		case err == nil:
		case errors.Is(err, flow.ErrWouldBlock):
			if some {
				f.since = f.now()
			}
			return false
		default:
			f.finish(flow.ReasonClientReset, true)
			return false
		}
	}
	f.rest = nil
	return true
}

// keep copies what the client does not take now.
func (f *echoFlow) keep(b []byte) {
	if len(b) > 0 {
		f.rest = append([]byte(nil), b...)
		f.since = f.now()
		f.arm()
	}
}

// write gives b to the client and counts what it took.
func (f *echoFlow) write(b []byte) (int, error) {
	p := &f.re.slice
	p.b = b
	n, err := f.conn.WriteFrom(p)
	p.b = nil
	if n > 0 {
		f.moved += uint64(n)
		f.re.tcp.bytesUp.Add(uint64(n))
		f.re.tcp.bytesDown.Add(uint64(n))
		f.last = f.now()
	}
	return int(n), err
}

// ended judges why nothing was read when nothing is left to write.
func (f *echoFlow) ended(err error) {
	switch {
	case errors.Is(err, flow.ErrWouldBlock):
	case errors.Is(err, io.EOF):
		f.finish(flow.ReasonDone, false)
	default:
		f.finish(flow.ReasonClientReset, true)
	}
}

func (f *echoFlow) now() time.Duration { return time.Since(f.start) }

// deadline returns when the flow ends and why, if nothing moves any more.
func (f *echoFlow) deadline() (time.Duration, flow.CloseReason) {
	at, reason := after(f.last, f.re.opts.IdleTimeout), flow.ReasonIdle
	if t := after(f.since, f.re.opts.StallTimeout); len(f.rest) > 0 && t < at {
		at, reason = t, flow.ReasonClientStalled
	}
	return at, reason
}

// arm sets the timer to the deadline, unless it fires before that anyway.
func (f *echoFlow) arm() {
	if at, _ := f.deadline(); at < f.due {
		f.due = at
		f.re.loop.Set(&f.timer, at-f.now())
	}
}

// Expire implements loop.Expirer.
func (f *echoFlow) Expire() {
	f.due = never
	if at, _ := f.deadline(); at <= f.now() && len(f.rest) > 0 {
		// The stack does not tell of a little room.
		if f.step(); f.dead {
			return
		}
	}
	if at, reason := f.deadline(); at <= f.now() {
		f.finish(reason, true)
		return
	}
	f.arm()
}

// finish closes the connection, by RST if abort.
func (f *echoFlow) finish(reason flow.CloseReason, abort bool) {
	f.dead = true
	f.re.loop.Stop(&f.timer)
	f.prev.next, f.next.prev = f.next, f.prev
	if abort {
		f.conn.Abort()
	} else {
		_ = f.conn.Close()
	}
	f.rest = nil
	reason = endReason(f.ctx, reason)
	f.re.tcp.end(reason)
	f.re.trace(Record{ID: f.conn.ID(), Reason: reason, Up: f.moved, Down: f.moved, Duration: f.now()})
}
