package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// Record is the end of one TCP flow or UDP session, for whoever wants to log it.
type Record struct {
	ID       flow.ID
	Upstream netip.AddrPort // where it was dialled; invalid for echo
	Result   DialResult
	Reason   flow.CloseReason // valid iff Result is DialOK
	Err      error            // why the dial failed; nil iff Result is DialOK
	Up, Down uint64           // payload bytes
	Duration time.Duration
}

// Handler is a flow.Handler that counts.
type Handler interface {
	flow.Handler
	// Run serves timeouts until ctx is done, then ends what is left and
	// returns after its last goroutine.
	Run(ctx context.Context) error
	// OnShortage sets who is told when new flows begin and end to be refused
	// for want of descriptors; nil tells nobody. It is called before Run. tell
	// must not wait, and is called at most once in some seconds.
	OnShortage(tell func(FilesEvent))
	// Stats returns a snapshot; it takes no lock of the data path.
	Stats() Stats
}

// New returns the handler that o names. trace, if not nil, is called at the end
// of every flow, on the flow's goroutine.
func New(o Options, trace func(Record)) (Handler, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if trace == nil {
		trace = func(Record) {}
	}
	if o.Handler == "echo" {
		return newEcho(o, trace), nil
	}
	d := newDirect(o, trace)
	return d, d.probe()
}

// direct serves flows through host sockets.
type direct struct {
	opts   Options
	trace  func(Record)
	dial   dialer
	policy *policy
	tcp    flowCounters
	udp    *sessions
}

func newDirect(o Options, trace func(Record)) *direct {
	d := &direct{
		opts:  o,
		trace: trace,
		dial: dialer{
			mark:    int(o.Mark),
			device:  o.Interface,
			timeout: o.ConnectTimeout,
			keepalive: keepalive{
				idle: o.KeepaliveIdle, interval: o.KeepaliveInterval, count: o.KeepaliveCount,
			},
			files: newFiles(),
		},
		policy: newPolicy(o.Allow, o.Own...),
	}
	d.udp = newSessions(d)
	return d
}

// probe finds out at start what every dial would otherwise find out.
func (d *direct) probe() error {
	u, err := d.dial.socket(netip.AddrPortFrom(netip.IPv4Unspecified(), 0), unix.SOCK_DGRAM)
	switch {
	case errors.Is(err, unix.EPERM) && d.opts.Mark != 0:
		return fmt.Errorf("proxy.mark: sockets may not be marked (%w): it needs CAP_NET_ADMIN; run as root, grant it, or set proxy.mark to 0", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("proxy.interface: there is no interface %s here: name one that exists (ip link)", d.opts.Interface)
	case err != nil:
		return fmt.Errorf("proxy: upstream sockets cannot be made: %w", err)
	}
	return u.f.Close()
}

// errDenied is what the policy answers.
var errDenied = errors.New("destination not allowed")

// errLoop says that an upstream connection of ours came back through the device.
var errLoop = errors.New("own upstream connection came back through the device: give upstream sockets a route around it (proxy.mark and an ip rule, or proxy.interface)")

// target returns where a flow is dialled.
func (d *direct) target(id flow.ID) (netip.AddrPort, error) {
	if d.opts.Handler == "fixed" {
		return d.opts.Target, nil
	}
	if to, ok := d.opts.Forward[id.Destination]; ok {
		return to, nil
	}
	if c := d.policy.deniedClass(id.Destination.Addr()); c != "" {
		return id.Destination, fmt.Errorf("%w: class %s (proxy.allow opens it)", errDenied, c)
	}
	return id.Destination, nil
}

// admit returns where a TCP flow is dialled, if it may be.
func (d *direct) admit(id flow.ID) (netip.AddrPort, error) {
	to, err := d.target(id)
	if err == nil && d.dial.own.has(id.Client) {
		err = errLoop
	}
	return to, err
}

// HandleTCP implements flow.Handler.
func (d *direct) HandleTCP(ctx context.Context, req flow.Request) {
	start := time.Now()
	rec := Record{ID: req.ID()}
	u, err := d.open(ctx, req.ID(), &rec)
	d.tcp.dials[rec.Result].Add(1)
	if err != nil {
		rec.Err = err
		rec.Duration = time.Since(start)
		d.answerFailure(req, rec.Result)
		d.trace(rec)
		return
	}
	c, err := req.Accept()
	if err != nil {
		u.abort()
		return
	}
	d.tcp.begin()
	r := newRelay(d, c, u)
	rec.Reason = endReason(ctx, r.run())
	d.dial.files.freed()
	d.tcp.end(rec.Reason)
	rec.Up, rec.Down, rec.Duration = r.up.moved, r.down.moved, time.Since(start)
	d.trace(rec)
}

// endReason tells a stack that resets its connections because it stops from a
// client that does.
func endReason(ctx context.Context, r flow.CloseReason) flow.CloseReason {
	if r == flow.ReasonClientReset && ctx.Err() != nil {
		return flow.ReasonShutdown
	}
	return r
}

// open dials the flow's upstream.
func (d *direct) open(ctx context.Context, id flow.ID, rec *Record) (*upstream, error) {
	to, err := d.admit(id)
	rec.Upstream = to
	if err != nil {
		rec.Result = DialDenied
		return nil, err
	}
	u, err := d.dial.connect(ctx, to)
	rec.Result = dialResult(err)
	return u, err
}

// answerFailure gives the client what it would have seen without a gateway: RST
// for a refusal, silence for a host that does not answer.
func (d *direct) answerFailure(req flow.Request, r DialResult) {
	if r == DialTimeout {
		req.Drop()
		return
	}
	req.Refuse()
}

// HandleDatagram implements flow.Handler.
func (d *direct) HandleDatagram(w flow.DatagramWriter, id flow.ID, payload []byte) bool {
	return d.udp.send(w, id, payload)
}

// Run implements Handler.
func (d *direct) Run(ctx context.Context) error { return d.udp.run(ctx) }

// OnShortage implements Handler.
func (d *direct) OnShortage(tell func(FilesEvent)) {
	if tell == nil {
		tell = func(FilesEvent) {}
	}
	d.dial.files.onShortage(tell)
}

// Stats implements Handler.
func (d *direct) Stats() Stats {
	short, shortages := d.dial.files.stats()
	return Stats{
		FilesShort:      short,
		FilesShortages:  shortages,
		TCP:             d.tcp.snapshot(),
		UDP:             d.udp.counters.snapshot(),
		UDPSessionLimit: d.udp.counters.sessionLimit.Load(),
		UDPDropped:      d.udp.counters.datagramsPassed.Load(),
	}
}
