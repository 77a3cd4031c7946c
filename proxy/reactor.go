package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// reactor relays TCP connections on an event loop: no goroutine, no buffer and no
// runtime timer belongs to a connection that is open. A goroutine serves each
// attempt until then, since the stack's handshake blocks one.
type reactor struct {
	*direct
	loop *loop.Loop

	// The loop's own.
	scratch  [smallRead]byte
	writer   gatherWriter
	slice    slicePayload
	sock     sockPayload
	flows    reactorFlow // head of the ring of all flows
	stopping bool
}

// NewOnLoop is New with everything served on l, which must run until Handler.Run has
// returned.
func NewOnLoop(o Options, l *loop.Loop, trace func(Record)) (Handler, error) {
	h, err := New(o, trace)
	if err != nil {
		return nil, err
	}
	if e, ok := h.(*echo); ok {
		return newEchoReactor(e, l), nil
	}
	d := h.(*direct) // there is no third
	d.udp.loop, d.udp.shared = l, true
	re := &reactor{direct: d, loop: l}
	re.flows.prev, re.flows.next = &re.flows, &re.flows
	return re, nil
}

// HandleTCP implements flow.Handler. It returns when the connection is the loop's.
func (re *reactor) HandleTCP(ctx context.Context, req flow.Request) {
	f := &reactorFlow{re: re, ctx: ctx, fd: -1, rec: Record{ID: req.ID()}, start: time.Now()}
	f.task.Init(f)
	f.source.Init(f)
	f.timer.Init(f)
	err := f.dial(ctx)
	re.tcp.dials[f.rec.Result].Add(1)
	if err != nil {
		f.rec.Err = err
		f.rec.Duration = time.Since(f.start)
		re.answerFailure(req, f.rec.Result)
		re.trace(f.rec)
		return
	}
	c, err := req.Accept()
	if err != nil {
		f.closeSocket(true)
		return
	}
	f.conn = c
	f.state = flowStarting
	re.tcp.begin()
	if !re.loop.Post(&f.task) {
		c.Abort()
		f.closeSocket(true)
		re.tcp.end(flow.ReasonShutdown)
	}
}

// Run implements Handler.
func (re *reactor) Run(ctx context.Context) error {
	err := re.direct.Run(ctx)
	var done sync.WaitGroup
	done.Add(1)
	var task loop.Task
	task.Init(loop.RunnerFunc(func() {
		defer done.Done()
		re.stopping = true
		for f := re.flows.next; f != &re.flows; f = re.flows.next {
			f.finish(flow.ReasonShutdown, true)
		}
	}))
	if re.loop.Post(&task) {
		done.Wait()
	}
	return err
}

// dial connects the flow's socket and waits for the outcome. Most connects are
// decided by the time the system call returns (a host in the next namespace) or
// after one round trip, for which the loop is asked.
func (f *reactorFlow) dial(ctx context.Context) error {
	d := f.re.direct
	to, err := d.admit(f.rec.ID)
	f.rec.Upstream = to
	if err != nil {
		f.rec.Result = DialDenied
		return err
	}
	if f.fd, err = d.dial.rawSocket(to, unix.SOCK_STREAM); err == nil {
		err = f.connect(ctx)
	}
	if err != nil {
		f.closeSocket(true)
	}
	f.rec.Result = dialResult(err)
	return err
}

func (f *reactorFlow) connect(ctx context.Context) error {
	d := &f.re.direct.dial
	local, err := startConnect(f.fd, f.rec.Upstream)
	if err != nil {
		return err
	}
	d.own.add(local)
	defer d.own.remove(local)
	if done, err := connected(f.fd); done {
		return err
	}
	f.dialled = make(chan error, 1)
	f.state = flowDialling
	if !f.re.loop.Post(&f.task) {
		return context.Canceled
	}
	select {
	case err = <-f.dialled:
	case <-ctx.Done():
		// The loop still knows the socket, and gives it back.
		f.cancelled.Store(true)
		f.re.loop.Post(&f.task)
		err = errors.Join(ctx.Err(), <-f.dialled)
	}
	f.dialled = nil
	return err
}

func (f *reactorFlow) closeSocket(abort bool) {
	if f.fd < 0 {
		return
	}
	if abort {
		_ = resetOnClose(f.fd)
	}
	_ = unix.Close(f.fd)
	f.fd = -1
	f.re.dial.files.freed()
}
