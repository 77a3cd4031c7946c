package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tungate/tungate/flow"
)

// echo answers every TCP connection and every datagram with what it sent, each
// connection on the goroutine of its attempt.
type echo struct {
	opts  Options
	trace func(Record)
	tcp   flowCounters
	udp   flowCounters
}

func newEcho(o Options, trace func(Record)) *echo { return &echo{opts: o, trace: trace} }

// HandleTCP implements flow.Handler.
func (e *echo) HandleTCP(ctx context.Context, req flow.Request) {
	c, err := req.Accept()
	if err != nil {
		return
	}
	start := time.Now()
	e.tcp.begin()
	l := &echoLoop{
		c: c, idle: e.opts.IdleTimeout, hold: e.opts.StallTimeout, stats: &e.tcp,
		ready: make(chan struct{}, 1), start: start,
	}
	reason := endReason(ctx, l.run())
	e.tcp.end(reason)
	e.trace(Record{ID: c.ID(), Reason: reason, Up: l.moved, Down: l.moved, Duration: time.Since(start)})
}

// HandleDatagram implements flow.Handler.
func (e *echo) HandleDatagram(w flow.DatagramWriter, id flow.ID, payload []byte) bool {
	e.udp.bytesUp.Add(uint64(len(payload)))
	if w.WriteDatagram(id, id.Destination, payload) == nil {
		e.udp.bytesDown.Add(uint64(len(payload)))
	}
	return true
}

// Run implements Handler.
func (e *echo) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// OnShortage implements Handler: no flow has a descriptor.
func (e *echo) OnShortage(func(FilesEvent)) {}

// Stats implements Handler.
func (e *echo) Stats() Stats { return Stats{TCP: e.tcp.snapshot(), UDP: e.udp.snapshot()} }

// echoLoop serves one connection.
type echoLoop struct {
	c     flow.Conn
	idle  time.Duration // negative for none
	hold  time.Duration // stall timeout, negative for none
	stats *flowCounters
	ready chan struct{}
	moved uint64
	b     []byte // read and not yet written, in a scratch buffer
	start time.Time
	last  time.Duration // when bytes last moved, since start
	since time.Duration // valid iff b is not empty: when the client last took any
}

// Notify implements flow.Notifier.
func (l *echoLoop) Notify() { wake(l.ready) }

// run echoes until the client ends, stays silent or takes nothing.
func (l *echoLoop) run() flow.CloseReason {
	l.c.SetNotifier(l)
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		moved, full := l.moved, len(l.b) > 0
		err := l.pass()
		switch {
		case errors.Is(err, io.EOF):
			_ = l.c.Close()
			return flow.ReasonDone
		case !errors.Is(err, flow.ErrWouldBlock):
			l.c.Abort()
			return flow.ReasonClientReset
		}
		now := time.Since(l.start)
		if l.moved != moved {
			l.last = now
		}
		if l.moved != moved || !full {
			l.since = now
		}
		at, reason := l.deadline()
		if at <= now {
			l.c.Abort()
			return reason
		}
		timer.Reset(at - now)
		select {
		case <-l.ready:
		case <-timer.C:
		}
	}
}

// deadline returns when the connection ends and why, if nothing moves any more.
func (l *echoLoop) deadline() (time.Duration, flow.CloseReason) {
	at, reason := after(l.last, l.idle), flow.ReasonIdle
	if t := after(l.since, l.hold); len(l.b) > 0 && t < at {
		at, reason = t, flow.ReasonClientStalled
	}
	return at, reason
}

// pass echoes until a call would block or fails. No buffer is held between two
// passes but for bytes that the client does not take.
func (l *echoLoop) pass() error {
	buf := scratch.Get().(*[smallRead]byte)
	defer scratch.Put(buf)
	for {
		if len(l.b) == 0 {
			w := fill{b: buf[:0]}
			if _, err := l.c.ReadTo(&w); err != nil && !errors.Is(err, io.ErrShortWrite) {
				return err
			}
			l.b = w.b
		}
		p := slicePayload{b: l.b}
		n, err := l.c.WriteFrom(&p)
		l.b = l.b[n:]
		l.moved += uint64(n)
		l.stats.bytesUp.Add(uint64(n))
		l.stats.bytesDown.Add(uint64(n))
		if err != nil {
			l.b = append([]byte(nil), l.b...)
			return err
		}
	}
}

// fill is an io.Writer into a buffer of fixed size.
type fill struct{ b []byte }

func (f *fill) Write(p []byte) (int, error) {
	n := copy(f.b[len(f.b):cap(f.b)], p)
	f.b = f.b[:len(f.b)+n]
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
