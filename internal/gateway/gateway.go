// Package gateway puts the parts together: device, stack, handler, admin server.
//
// # Theory of operation
//
// New acquires what may be refused, in the order in which a refusal costs least:
// the admin server's address, the right to mark sockets, the device. Run starts
// the parts and waits for the context or for the first part to fail. The end is
// the same for both:
//
//  1. not ready any more, new connections are refused (RST);
//  2. connections that are open have Config.ShutdownTimeout to finish, their
//     clients to acknowledge the last byte;
//  3. what is left is reset, UDP sessions end, while the device still carries it;
//  4. the device is deleted, unless it was somebody else's, the admin server closed,
//     the loop ended.
//
// # The device
//
// One part runs stack and watcher over the device, and ends when one of them does.
// A device that was deleted ends the gateway, or, with tundev.Recreate, is made again
// by the name it had, every 500 ms until that works: the stack serves another device
// from then on, its connections and counters surviving, and the gateway is not ready
// meanwhile. One that came by a socket is waited for again; inherited descriptors
// cannot be had twice.
//
// # Goroutines
//
// Run owns one per part (loop, device, stack, watcher of the link, handler, memory,
// admin server) besides theirs, and returns after all of them.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tungate/tungate/admin"
	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/memory"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/metrics"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

const (
	// drainPoll is how often a draining gateway looks whether it is empty.
	drainPoll = 20 * time.Millisecond
	// handshakeGrace is how long attempts that began before the drain count as
	// connections: their client may be past its handshake already. What takes
	// longer waits for an upstream that does not answer.
	handshakeGrace = time.Second
)

// Deps are what a Gateway is given besides its config.
type Deps struct {
	Log   *zap.Logger // required
	Build metrics.Build
	// Device is served instead of one made from Config.Device. The Gateway
	// owns it, also when New fails.
	Device Device
	// Remake makes it again when somebody has deleted it, for
	// tundev.Recreate; nil cannot.
	Remake func(context.Context) (Device, error)
	// Alone says that the process is the gateway's: how many processors Go uses may
	// be set.
	Alone bool
}

// Device is what a Gateway needs of a device; *tundev.Device is one.
type Device interface {
	netstack.Device
	Name() string
	Notes() []string
	Close() error
}

// Gateway is one device with everything behind it.
type Gateway struct {
	cfg     *config.Config
	log     *zap.Logger
	remake  func(context.Context) (Device, error)
	loop    *loop.Loop // nil with proxy.relay simple
	handler proxy.Handler
	stack   *netstack.Stack
	admin   *admin.Server
	memory  *memory.Pacer

	state  atomic.Int32           // phase
	served atomic.Pointer[Device] // another after it was made again
	iface  atomic.Pointer[tundev.State]
	told   atomic.Pointer[tundev.State] // what was last told of, while more is gathered
	gone   atomic.Bool                  // the device was deleted, and is not there again yet

	short shortage // of memory

	alone      bool
	processors processors
}

// phase is how far a Gateway has come.
type phase int32

const (
	starting phase = iota
	serving
	stopping
)

// New makes a gateway that cfg describes; nothing moves until Run. ctx ends the wait
// for a device that somebody is to send. The error is one sentence that says what
// to do.
func New(ctx context.Context, cfg *config.Config, d Deps) (_ *Gateway, err error) {
	g := &Gateway{cfg: cfg, log: d.Log, remake: d.Remake, alone: d.Alone}
	g.memory = memory.New(cfg.MemoryLimit, memory.Users{
		Pressure:    g.refuse,
		Shed:        g.shed,
		Connections: func() int { return g.stack.Pending() },
		Alive:       g.processors.alive,
	})
	if d.Device != nil {
		g.served.Store(&d.Device)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.release())
		}
	}()
	registry := metrics.New(metrics.Sources{
		Stack:  func() netstack.Stats { return g.stack.Stats() },
		Proxy:  func() proxy.Stats { return g.handler.Stats() },
		Device: g.deviceMetrics,
		Memory: g.memoryMetrics,
		Build:  d.Build,
	})
	if g.admin, err = admin.New(cfg.Admin, admin.Deps{Metrics: registry.Handler(), Ready: g.Ready, Log: d.Log}); err != nil {
		return nil, err
	}
	if err = g.newHandler(); err != nil {
		return nil, err
	}
	if d.Device == nil {
		g.remake = g.createDevice
		device, err := g.createDevice(ctx)
		if err != nil {
			return nil, err
		}
		g.served.Store(&device)
	}
	deps := netstack.Deps{Loop: g.loop}
	if g.device().Kind() == tundev.TAP {
		if deps.LAN, err = g.newLAN(); err != nil {
			return nil, err
		}
	}
	if g.stack, err = netstack.New(g.device(), g.handler, g.stackOptions(), deps); err != nil {
		return nil, err
	}
	return g, nil
}

// stackOptions are the config's, with what another section says of them.
func (g *Gateway) stackOptions() netstack.Options {
	const (
		unset = 10 * time.Second // proxy's default
		spare = 20 * time.Second
	)
	o := g.cfg.Stack
	o.Handshake.DialTimeout = min(time.Hour, max(g.cfg.Proxy.ConnectTimeout, unset)+spare)
	if o.TCP.BufferBudget == 0 {
		o.TCP.BufferBudget = g.memory.Share()
	}
	return o
}

// newHandler makes the handler, and the loop it shares with the device.
func (g *Gateway) newHandler() (err error) {
	o := g.cfg.Proxy
	for _, a := range g.cfg.LAN.Addresses {
		o.Own = append(o.Own, a.Addr())
	}
	if o.Relay == "simple" {
		g.handler, err = proxy.New(o, g.trace)
	} else {
		if g.loop, err = loop.New(); err != nil {
			return err
		}
		g.handler, err = proxy.NewOnLoop(o, g.loop, g.trace)
	}
	if err != nil {
		return err
	}
	g.handler.OnShortage(g.tellShortage)
	return nil
}

// tellShortage says, a line each, when descriptors run out and when they are back.
func (g *Gateway) tellShortage(e proxy.FilesEvent) {
	if e.Over {
		g.log.Info("file descriptors are available again", zap.Uint64("refused", e.Refused), zap.Duration("for", e.Lasted))
		return
	}
	g.log.Warn("no file descriptor left: new connections are refused until some are free; raise the limit (LimitNOFILE, ulimit -n)", zap.Int("limit", e.Limit))
}

// Run serves until ctx is done, drains, and returns nil; or returns why a part
// failed. cut, if it is done during the drain, ends that at once. Run is called
// once, and releases everything.
func (g *Gateway) Run(ctx context.Context, cut <-chan struct{}) error {
	// The parts outlive ctx by the drain.
	partCtx, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	stopLoop := g.startLoop(context.WithoutCancel(ctx))
	if g.alone && g.loop != nil {
		g.processors.begin()
		defer g.processors.end()
	}
	parts := g.parts(partCtx)
	failed := make(chan error, len(parts))
	for _, p := range parts {
		go func() { failed <- named(p.name, p.run()) }()
	}
	g.state.Store(int32(serving))
	g.announce()

	var err error
	running := len(parts)
	select {
	case <-ctx.Done():
		g.drain(cut)
	case err = <-failed:
		running--
	}
	g.state.Store(int32(stopping))
	err = errors.Join(err, g.stack.Close())
	stopParts()
	last := g.device()
	err = errors.Join(err, last.Close())
	for range running {
		err = errors.Join(err, <-failed)
	}
	if d := g.device(); d != last { // made again meanwhile
		err = errors.Join(err, d.Close())
	}
	// Last, because the other parts end on it.
	err = errors.Join(err, stopLoop())
	if err == nil {
		g.log.Info("stopped")
	}
	return err
}

// part is something that runs as long as the gateway.
type part struct {
	name string
	run  func() error
}

func (g *Gateway) parts(ctx context.Context) []part {
	return []part{
		{"device " + g.device().Name(), func() error { return g.serveDevice(ctx) }},
		{"proxy", func() error { return g.handler.Run(ctx) }},
		{"memory", func() error { return g.memory.Run(ctx) }},
		{"admin", func() error { return g.admin.Run(ctx) }},
	}
}

// startLoop runs the loop, if there is one, until stop is called.
func (g *Gateway) startLoop(ctx context.Context) (stop func() error) {
	if g.loop == nil {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		if g.cfg.Stack.PinReaders {
			undo := link.Pin(0) // it reads every queue
			defer undo()
		}
		done <- g.loop.Run(ctx)
	}()
	return func() error {
		cancel()
		return named("loop", <-done)
	}
}

// named puts a part's name before its error.
func named(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// drain lets open connections finish.
func (g *Gateway) drain(cut <-chan struct{}) {
	g.state.Store(int32(stopping))
	g.stack.Drain()
	start := time.Now()
	open := g.open(start)
	if open == 0 {
		return
	}
	g.log.Info("draining", zap.Int("connections", open), zap.Duration("at_most", g.cfg.ShutdownTimeout))
	deadline := time.NewTimer(g.cfg.ShutdownTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if g.open(start) == 0 {
				return
			}
		case <-deadline.C:
			g.log.Warn("drain timed out: connections are reset", zap.Int("connections", g.open(start)))
			return
		case <-cut:
			g.log.Warn("drain cut short: connections are reset", zap.Int("connections", g.open(start)))
			return
		}
	}
}

// open is how many connections a drain that began at start waits for.
func (g *Gateway) open(start time.Time) int {
	n := g.stack.Pending()
	if time.Since(start) < handshakeGrace {
		n += g.stack.Stats().Flows.HalfOpen
	}
	return n
}

// release closes what New acquired before it failed.
func (g *Gateway) release() error {
	var errs []error
	if g.stack != nil {
		errs = append(errs, g.stack.Close())
	}
	if g.served.Load() != nil {
		errs = append(errs, g.device().Close())
	}
	if g.loop != nil {
		errs = append(errs, g.loop.Close())
	}
	if g.admin != nil {
		errs = append(errs, g.admin.Close())
	}
	return errors.Join(errs...)
}

// Ready returns nil while the gateway serves, else why it does not.
func (g *Gateway) Ready() error {
	switch phase(g.state.Load()) {
	case serving:
		if g.gone.Load() {
			return errors.New("the device was deleted and is not there again yet")
		}
		return nil
	case stopping:
		return errors.New("the gateway is stopping")
	case starting:
	}
	return errors.New("the gateway is starting")
}

// Stats returns a snapshot of the stack's and the handler's counters.
func (g *Gateway) Stats() (netstack.Stats, proxy.Stats) { return g.stack.Stats(), g.handler.Stats() }

// announce says once what is served, and what had to be left out.
func (g *Gateway) announce() {
	for _, note := range g.device().Notes() {
		g.log.Warn(note)
	}
	handler := g.cfg.Proxy.Handler
	if handler == "" {
		handler = "direct"
	}
	g.log.Info("serving",
		zap.String("device", g.device().Name()),
		zap.Uint32("mtu", uint32(g.device().MTU())),
		zap.Stringer("offload", g.device().Features()),
		zap.String("handler", handler))
}

// trace logs the end of a flow, for debugging: what a client chose is only ever
// numbers here.
func (g *Gateway) trace(r proxy.Record) {
	c := g.log.Check(zap.DebugLevel, "flow")
	if c == nil {
		return
	}
	c.Write(
		zap.Stringer("flow", r.ID),
		zap.Stringer("upstream", r.Upstream),
		zap.Stringer("dial", r.Result),
		zap.Stringer("end", r.Reason),
		zap.Uint64("up", r.Up),
		zap.Uint64("down", r.Down),
		zap.Duration("for", r.Duration),
		zap.Error(r.Err))
}
