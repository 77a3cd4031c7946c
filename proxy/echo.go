package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tungate/tungate/flow"
)

// echo answers every TCP connection and every datagram with what it sent.
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
	l := &echoLoop{c: c, idle: e.opts.IdleTimeout, stats: &e.tcp, ready: make(chan struct{}, 1)}
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
	idle  time.Duration
	stats *flowCounters
	ready chan struct{}
	moved uint64
	b     []byte // read and not yet written, in a scratch buffer
}

// Notify implements flow.Notifier.
func (l *echoLoop) Notify() { wake(l.ready) }

// run echoes until the client ends or stays silent.
func (l *echoLoop) run() flow.CloseReason {
	l.c.SetNotifier(l)
	// A nil channel never fires, which is what no idle timeout means.
	var expired <-chan time.Time
	var timer *time.Timer
	if l.idle >= 0 {
		timer = time.NewTimer(l.idle)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		err := l.pass()
		switch {
		case errors.Is(err, io.EOF):
			_ = l.c.Close()
			return flow.ReasonDone
		case !errors.Is(err, flow.ErrWouldBlock):
			l.c.Abort()
			return flow.ReasonClientReset
		}
		if timer != nil {
			timer.Reset(l.idle)
		}
		select {
		case <-l.ready:
		case <-expired:
			l.c.Abort()
			return flow.ReasonIdle
		}
	}
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
