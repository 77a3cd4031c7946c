package link

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/tundev"
)

// gsoMaxSize is the largest packet the stack may build: IPv4's total length is 16
// bits wide.
const gsoMaxSize = 65535

// Device is what the endpoint needs of a device; *tundev.Device is one.
type Device interface {
	Kind() tundev.Kind
	Queues() []tundev.Queue
	Features() tundev.Features
	MTU() tundev.MTU
}

// Options configures an Endpoint.
type Options struct {
	Device Device
	// LAN is the Ethernet side of a TAP, and nil for a TUN.
	LAN *lan.LAN
	// Sources are the prefixes a packet may come from; empty is any unicast.
	Sources []netip.Prefix
	// Flows sees every TCP packet both ways, and Owner what it decides; nil lets
	// them pass.
	Flows *minisock.Table
	Owner Owner
	// Pin keeps the goroutine that reads queue n on processor n, counted round.
	Pin bool
	// Loop reads the queues that have a descriptor; nil, or a queue without
	// one, is read by a goroutine.
	Loop *loop.Loop
	// Clock is what all but the LAN goes by; nil is the machine's.
	Clock tcpip.Clock
}

// Endpoint is a stack.LinkEndpoint and stack.GSOEndpoint.
type Endpoint struct {
	loop   *loop.Loop
	pin    bool
	guard  guard
	lan    *ethernet // nil on a TUN
	flows  *minisock.Table
	owner  Owner
	clock  tcpip.Clock
	start  tcpip.MonotonicTime // of the flows' clock
	tick   *ticker             // nil without flows
	owing  owing               // of use with flows
	stalls stalls              // the same
	look   atomic.Pointer[func(tcp []byte) bool]
	big    tooBig
	drops  [NumDropReasons]atomic.Uint64
	mtu    atomic.Uint32

	device atomic.Pointer[device] // another after Replace

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

// device is the device served now.
type device struct {
	features tundev.Features
	queues   []*queue
	steer    steering
	tso      atomic.Bool  // superframes may be written
	refusals atomic.Int32 // superframes that the device refused
}

var (
	_ stack.LinkEndpoint = (*Endpoint)(nil)
	_ stack.GSOEndpoint  = (*Endpoint)(nil)
)

// New returns an endpoint; nothing runs until Run.
func New(o Options) *Endpoint {
	if o.Clock == nil {
		o.Clock = tcpip.NewStdClock()
	}
	e := &Endpoint{
		loop: o.Loop, pin: o.Pin, guard: guard{sources: o.Sources},
		flows: o.Flows, owner: o.Owner, clock: o.Clock, start: o.Clock.NowMonotonic(),
	}
	if o.Flows != nil {
		e.tick = newTicker(e)
		e.owing.init(e)
		e.stalls.init(e)
	}
	if o.LAN != nil {
		e.lan = newEthernet(e, o.LAN)
	}
	e.Replace(o.Device)
	return e
}

// Replace makes d the device: its queues are read by the next Run, and written
// from now on. The counters go on. It must not be called during Run.
func (e *Endpoint) Replace(d Device) {
	e.mtu.Store(uint32(d.MTU()))
	next := &device{features: d.Features()}
	next.tso.Store(true)
	old := e.device.Load()
	for i, q := range d.Queues() {
		n := newQueue(e, next, i, q)
		if old != nil && i < len(old.queues) {
			n.counters = old.queues[i].counters
		}
		next.queues = append(next.queues, n)
	}
	next.steer.init(len(next.queues))
	e.device.Store(next)
	if old != nil && e.lan != nil {
		e.lan.lan.Forget()
	}
}

// Run serves the device until ctx is done (nil), it is closed (net.ErrClosed) or
// lost (tundev.ErrGone). A goroutine that reads a queue does not see ctx: the
// caller closes the device as well to make Run return.
func (e *Endpoint) Run(ctx context.Context) error {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := e.device.Load()
	errs := make(chan error, len(d.queues))
	for _, q := range d.queues {
		go func() { errs <- q.run(ctx) }()
	}
	var tick sync.WaitGroup
	if e.lan != nil {
		tick.Go(func() { e.lan.run(ctx) })
	}
	if e.flows != nil {
		tick.Go(func() { e.tick.run(ctx) })
		tick.Go(func() { e.stalls.run(ctx) })
	}
	var joined error
	for range d.queues {
		if err := <-errs; !errors.Is(joined, tundev.ErrGone) || !errors.Is(err, tundev.ErrGone) { // each would tell
			joined = errors.Join(joined, err)
		}
		cancel()
	}
	tick.Wait()
	if e.flows != nil {
		e.owing.timer.Stop()
	}
	for _, q := range d.queues {
		q.backlog.stop()
	}
	if outer.Err() != nil {
		return nil
	}
	return joined
}

// Stats returns a snapshot; it takes no lock but that of the LAN.
func (e *Endpoint) Stats() Stats {
	queues := e.device.Load().queues
	s := Stats{Queues: make([]QueueStats, len(queues))}
	for i, q := range queues {
		s.Queues[i] = QueueStats{Rx: q.counters.rx.snapshot(), Tx: q.counters.tx.snapshot(), Waiting: q.backlog.waiting()}
	}
	for i := range e.drops {
		s.Drops[i] = e.drops[i].Load()
	}
	if e.lan != nil {
		s.LAN = e.lan.lan.Stats()
	}
	return s
}

// Features returns the offloads in use: the device's, less what it refused since.
func (e *Endpoint) Features() tundev.Features {
	d := e.device.Load()
	f := d.features
	if !d.tso.Load() {
		f.TSO4, f.TSO6 = false, false
	}
	return f
}

// LinkUp is to be called when the link comes up: guests are told of the gateway.
func (e *Endpoint) LinkUp() {
	if e.lan != nil {
		e.lan.linkUp()
	}
}

func (e *Endpoint) drop(r DropReason) { e.drops[r].Add(1) }

// MTU implements stack.LinkEndpoint.
func (e *Endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint.
func (e *Endpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// MaxHeaderLength implements stack.LinkEndpoint: the stack leaves no room for a
// link header, since a TUN has none and a TAP's is a vector of its own.
func (e *Endpoint) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.LinkEndpoint; the package comment says why these.
func (e *Endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityTXChecksumOffload | stack.CapabilityLoopback
}

// SupportedGSO implements stack.GSOEndpoint. Without TSO in the device the
// superframe is cut at the last moment here, which still saves the stack the work
// per segment.
func (e *Endpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize implements stack.GSOEndpoint.
func (e *Endpoint) GSOMaxSize() uint32 { return gsoMaxSize }

// Attach implements stack.LinkEndpoint; nil detaches.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (e *Endpoint) IsAttached() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.dispatcher != nil
}

// deliver hands a packet to the stack, if there is one.
func (e *Endpoint) deliver(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	e.mu.RLock()
	d := e.dispatcher
	e.mu.RUnlock()
	if d != nil {
		d.DeliverNetworkPacket(proto, pkt)
	}
	pkt.DecRef()
}

// Wait implements stack.LinkEndpoint: the goroutines are Run's.
func (e *Endpoint) Wait() {}

// ARPHardwareType implements stack.LinkEndpoint.
func (e *Endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (e *Endpoint) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (e *Endpoint) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.LinkEndpoint: the device is its owner's to close.
func (e *Endpoint) Close() {}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *Endpoint) SetOnCloseAction(func()) {}

// counters is Counters while it counts. Rx has one writer, Tx many.
type counters struct {
	frames, bytes, superframes, superframeBytes, partial, software, refused, merged, outdated, verified, split, waited atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Frames:          c.frames.Load(),
		Bytes:           c.bytes.Load(),
		Superframes:     c.superframes.Load(),
		SuperframeBytes: c.superframeBytes.Load(),
		PartialChecksum: c.partial.Load(),
		SoftwareGSO:     c.software.Load(),
		Refused:         c.refused.Load(),
		Merged:          c.merged.Load(),
		Outdated:        c.outdated.Load(),
		Verified:        c.verified.Load(),
		Split:           c.split.Load(),
		Waited:          c.waited.Load(),
	}
}

// count adds one frame of n bytes of IP.
func (c *counters) count(n int, superframe, partial bool) {
	c.frames.Add(1)
	c.bytes.Add(uint64(n))
	if superframe {
		c.superframes.Add(1)
		c.superframeBytes.Add(uint64(n))
	}
	if partial {
		c.partial.Add(1)
	}
}
