package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/metrics"
	"github.com/tungate/tungate/tundev"
)

// remakeEvery is how often a device that somebody deleted is tried to be made
// again: an attached one comes back when its maker makes it.
const remakeEvery = 500 * time.Millisecond

// device is the device that is served now.
func (g *Gateway) device() Device { return *g.served.Load() }

func (g *Gateway) createDevice(ctx context.Context) (Device, error) {
	if path := g.cfg.Device.Socket; path != "" {
		g.log.Info("waiting for somebody to send the device", zap.String("socket", path))
	}
	o := g.cfg.Device
	if d, ok := g.madeBefore(); ok {
		o = d // under the name that it had
	}
	d, err := tundev.CreateContext(ctx, o)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// newLAN makes the Ethernet side of a TAP.
func (g *Gateway) newLAN() (*lan.LAN, error) {
	o := g.cfg.LAN
	o.MTU = int(g.device().MTU())
	l, err := lan.New(o, time.Now())
	if err != nil {
		return nil, fmt.Errorf("lan: %w", err)
	}
	return l, nil
}

// serveDevice runs the stack over the device until ctx ends or the device does, and
// over the one that is made in its place if the config wants that.
func (g *Gateway) serveDevice(ctx context.Context) error {
	for {
		err := g.serveOnce(ctx)
		if !errors.Is(err, tundev.ErrGone) || !g.recreates() {
			return err
		}
		if !g.makeAgain(ctx) {
			return nil
		}
	}
}

// madeBefore returns how the device was made that is made again now.
func (g *Gateway) madeBefore() (o tundev.Options, ok bool) {
	p := g.served.Load()
	if p == nil {
		return o, false
	}
	d, ok := (*p).(interface{ Options() tundev.Options })
	if !ok {
		return o, false
	}
	return d.Options(), true
}

// recreates reports whether a device that was deleted is to be made again.
func (g *Gateway) recreates() bool {
	if g.cfg.Device.OnDelete != tundev.Recreate || g.remake == nil {
		return false
	}
	d, ok := g.device().(interface{ Recreatable() bool })
	return !ok || d.Recreatable()
}

// serveOnce runs the stack and the watcher of one device. When one ends, so does
// the other.
func (g *Gateway) serveOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- g.stack.Run() }() //nolint:contextcheck // the stack has its own, which Close ends
	w, ok := g.device().(watcher)
	if !ok {
		return <-ended
	}
	go func() { ended <- w.Watch(ctx, g.follow) }()
	err := <-ended
	cancel()
	if err != nil {
		err = errors.Join(err, g.device().Close()) // ends readers that saw nothing
	}
	if e := <-ended; !errors.Is(err, tundev.ErrGone) { // which each would tell
		err = errors.Join(err, e)
	}
	return err
}

// makeAgain makes the device anew, and tries until it can or ctx ends.
func (g *Gateway) makeAgain(ctx context.Context) bool {
	g.gone.Store(true)
	old := g.device()
	g.log.Warn("the device was deleted: making it again", zap.String("device", old.Name()))
	if err := old.Close(); err != nil {
		g.log.Warn("closing the deleted device", zap.Error(err))
	}
	again := time.NewTicker(remakeEvery)
	defer again.Stop()
	told := ""
	for {
		d, err := g.remake(ctx)
		if err == nil {
			g.replace(d)
			return true
		}
		if text := err.Error(); text != told { // once, as long as it is the same
			told = text
			g.log.Error("the device cannot be made again yet", zap.Error(err))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
}

// replace serves d in the place of the device that went.
func (g *Gateway) replace(d Device) {
	g.told.Store(nil)
	g.served.Store(&d)
	g.stack.Replace(d)
	g.iface.Store(&tundev.State{Up: true, MTU: d.MTU()})
	g.stack.LinkUp()
	g.gone.Store(false)
	for _, note := range d.Notes() {
		g.log.Warn(note)
	}
	g.log.Info("the device is there again", zap.String("device", d.Name()), zap.Stringer("offload", d.Features()))
}

// watcher is a device that tells of changes of its interface.
type watcher interface {
	Watch(ctx context.Context, fn func(tundev.State)) error
}

// settle is how long changes of the interface are gathered before they are told: the
// end of a device is announced as several.
const settle = 50 * time.Millisecond

// follow takes note of a change of the interface at once, and has it told soon.
func (g *Gateway) follow(now tundev.State) {
	before := g.iface.Swap(&now)
	if before == nil {
		return
	}
	g.stack.SetMTU(now.MTU)
	if now.Up && !before.Up {
		g.stack.LinkUp()
	}
	if g.told.CompareAndSwap(nil, before) {
		time.AfterFunc(settle, g.tell)
	}
}

// tell says, with one line, what has changed since follow was called first.
func (g *Gateway) tell() {
	before, now := g.told.Swap(nil), g.iface.Load()
	if g.gone.Load() || phase(g.state.Load()) != serving || before == nil {
		return // which has a line of its own
	}
	name := zap.String("device", g.device().Name())
	switch {
	case now.Up && !before.Up:
		g.log.Info("link up", name)
	case !now.Up && before.Up:
		g.log.Warn("link down: nothing moves until it is up", name)
	case now.MTU != before.MTU:
		g.log.Info("MTU changed", name, zap.Uint32("mtu", uint32(now.MTU)))
	case !slices.Equal(now.Addresses, before.Addresses):
		g.log.Info("addresses changed", name, zap.Stringers("addresses", now.Addresses))
	}
}

func (g *Gateway) deviceMetrics() metrics.Device {
	iface := tundev.State{Up: true, MTU: g.device().MTU()}
	if s := g.iface.Load(); s != nil {
		iface = *s
	}
	return metrics.Device{
		Up:       iface.Up && !g.gone.Load() && phase(g.state.Load()) == serving,
		MTU:      iface.MTU,
		Queues:   len(g.device().Queues()),
		Features: g.stack.Features(),
	}
}
