package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// reactor relays TCP connections on an event loop: no goroutine, no buffer and no
// runtime timer belongs to a connection, be it being dialled or open.
type reactor struct {
	*direct
	loop  *loop.Loop
	began time.Time // what flows' times are since

	// The loop's own.
	scratch  [smallRead]byte
	writer   gatherWriter
	slice    slicePayload
	sock     sockPayload
	flows    reactorFlow // head of the ring of all flows
	stopping bool

	watched atomic.Pointer[context.Context] // the stack's, whose end is heard of
	ended   loop.Task                       // of endDials
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
	re := &reactor{direct: d, loop: l, began: time.Now()}
	re.flows.prev, re.flows.next = &re.flows, &re.flows
	re.ended.Init(loop.RunnerFunc(re.endDials))
	return re, nil
}

// HandleTCP implements flow.Handler.
func (re *reactor) HandleTCP(ctx context.Context, req flow.Request) {
	re.StartTCP(ctx, flow.Later(req))
}

// StartTCP implements flow.Starter.
func (re *reactor) StartTCP(ctx context.Context, req flow.LaterRequest) {
	f := &reactorFlow{re: re, ctx: re.watch(ctx), opening: &opening{req: req}, fd: -1, start: time.Since(re.began)}
	f.task.Init(f)
	f.source.Init(f)
	f.timer.Init(f)
	if !re.loop.Post(&f.task) {
		req.Refuse()
	}
}

// watch lets the end of ctx, which is the same for all flows of a stack, end the
// dials under way, and returns where it is kept.
func (re *reactor) watch(ctx context.Context) *context.Context {
	if known := re.watched.Load(); known != nil && *known == ctx {
		return known
	}
	re.watched.Store(&ctx)
	context.AfterFunc(ctx, func() { re.loop.Post(&re.ended) })
	return &ctx
}

// endDials gives up the dials for stacks that have ended.
func (re *reactor) endDials() {
	for f := re.flows.next; f != &re.flows; {
		next := f.next
		if f.state == flowDialling && (*f.ctx).Err() != nil {
			f.endDial(context.Canceled)
		}
		f = next
	}
}

// Run implements Handler.
func (re *reactor) Run(ctx context.Context) error {
	err := re.direct.Run(ctx)
	var done sync.WaitGroup
	done.Add(1)
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { //nolint:contextcheck // a flow has the stack's
		defer done.Done()
		re.stopping = true
		for f := re.flows.next; f != &re.flows; f = re.flows.next {
			f.stop()
		}
	}))
	if re.loop.Post(&task) {
		done.Wait()
	}
	return err
}

// link enters f into the ring of all flows, unlink takes it out.
func (f *reactorFlow) link() {
	ring := &f.re.flows
	f.prev, f.next = ring.prev, ring
	f.prev.next, ring.prev = f, f
}

func (f *reactorFlow) unlink() { f.prev.next, f.next.prev = f.next, f.prev }

// stop ends the flow because everything does.
func (f *reactorFlow) stop() {
	switch f.state {
	case flowDialling:
		f.endDial(context.Canceled)
	case flowAccepting: // what comes of it finds the flow dead
		f.giveUp()
	case flowNew, flowOpen, flowDead:
		f.finish(flow.ReasonShutdown, true)
	}
}

// dial connects the flow's socket. Most connects are decided by the time the system
// call returns (a host in the next namespace) or after one round trip.
func (f *reactorFlow) dial() {
	f.link()
	d := f.re.direct
	to, err := d.admit(f.opening.req.ID())
	f.upstream = to
	switch {
	case f.re.stopping, (*f.ctx).Err() != nil:
		f.dialled(context.Canceled)
		return
	case err != nil:
		f.fail(DialDenied, err)
		return
	}
	fd, err := d.dial.plainSocket(to, unix.SOCK_STREAM)
	f.fd = int32(fd) //nolint:gosec // the kernel's int
	if err == nil {
		err = beginConnect(fd, to)
	}
	if err != nil {
		f.dialled(err)
		return
	}
	if done, err := connected(fd); done {
		f.dialled(err)
		return
	}
	if f.opening.local, err = localAddress(fd); err != nil {
		f.dialled(err)
		return
	}
	f.state = flowDialling
	d.dial.own.add(f.opening.local)
	if f.re.loop.Add(&f.source, fd, unix.EPOLLOUT) != nil {
		f.endDial(unix.ENOMEM) // epoll(7)'s only failure that is not a bug of ours
		return
	}
	f.re.loop.Set(&f.timer, f.re.opts.ConnectTimeout)
}

// endDial ends the wait for the socket.
func (f *reactorFlow) endDial(err error) {
	f.re.loop.Stop(&f.timer)
	f.re.loop.Remove(&f.source)
	f.re.direct.dial.own.remove(f.opening.local)
	f.dialled(err)
}

// dialled goes on with the socket's fate.
func (f *reactorFlow) dialled(err error) {
	result := dialResult(err)
	if err != nil {
		f.fail(result, err)
		return
	}
	f.re.tcp.dials[result].Add(1)
	f.state = flowAccepting
	f.opening.req.AcceptLater(f.accepted)
}

// fail ends a flow that has no upstream.
func (f *reactorFlow) fail(result DialResult, err error) {
	f.re.tcp.dials[result].Add(1)
	f.giveUp()
	req := f.opening.req
	f.re.answerFailure(req, result)
	f.re.trace(Record{ID: req.ID(), Upstream: f.upstream, Result: result, Err: err, Duration: f.now()})
}

// giveUp forgets a flow that never opened.
func (f *reactorFlow) giveUp() {
	f.state = flowDead
	f.unlink()
	f.closeSocket(true)
}

// accepted takes the client's connection, on whatever goroutine.
func (f *reactorFlow) accepted(c flow.Conn, err error) {
	f.opening.offer.Store(&offer{c, err})
	if !f.re.loop.Post(&f.task) && c != nil {
		c.Abort()
	}
}

// offer is what came of a request.
type offer struct {
	conn flow.Conn
	err  error
}

// take opens the flow with the client's connection, if there is one.
func (f *reactorFlow) take() {
	o := f.opening.offer.Swap(nil)
	switch {
	case o == nil:
	case o.err != nil:
		f.giveUp()
	default:
		f.conn, f.opening = o.conn, nil
		f.re.tcp.begin()
		f.open()
	}
}

func (f *reactorFlow) closeSocket(abort bool) {
	if f.fd < 0 {
		return
	}
	if abort {
		_ = resetOnClose(int(f.fd))
	}
	_ = unix.Close(int(f.fd))
	f.fd = -1
	f.re.dial.files.freed()
}
