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

	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/tundev"
)

// gsoMaxSize is the largest packet the stack may build: IPv4's total length is 16
// bits wide.
const gsoMaxSize = 65535

// Options configures an Endpoint.
type Options struct {
	Queues   []tundev.Queue
	Features tundev.Features
	MTU      tundev.MTU
	// Sources are the prefixes a packet may come from; empty is any unicast.
	Sources []netip.Prefix
	// Loop reads the queues that have a descriptor; nil, or a queue without
	// one, is read by a goroutine.
	Loop *loop.Loop
}

// Endpoint is a stack.LinkEndpoint and stack.GSOEndpoint.
type Endpoint struct {
	features tundev.Features
	loop     *loop.Loop
	guard    guard
	queues   []*queue
	mtu      atomic.Uint32
	tso      atomic.Bool  // superframes may be written
	refusals atomic.Int32 // superframes that the device refused
	drops    [NumDropReasons]atomic.Uint64

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

var (
	_ stack.LinkEndpoint = (*Endpoint)(nil)
	_ stack.GSOEndpoint  = (*Endpoint)(nil)
)

// New returns an endpoint; nothing runs until Run.
func New(o Options) *Endpoint {
	e := &Endpoint{features: o.Features, loop: o.Loop, guard: guard{sources: o.Sources}}
	e.mtu.Store(uint32(o.MTU))
	e.tso.Store(o.Features.TSO4 && o.Features.TSO6)
	for _, q := range o.Queues {
		e.queues = append(e.queues, newQueue(e, q))
	}
	return e
}

// Run serves the device until ctx is done (nil), it is closed (net.ErrClosed) or
// lost (tundev.ErrGone). A goroutine that reads a queue does not see ctx: the
// caller closes the device as well to make Run return.
func (e *Endpoint) Run(ctx context.Context) error {
	errs := make(chan error, len(e.queues))
	for _, q := range e.queues {
		go func() { errs <- q.run(ctx) }()
	}
	var joined error
	for range e.queues {
		joined = errors.Join(joined, <-errs)
	}
	if ctx.Err() == nil {
		return joined
	}
	return nil
}

// Stats returns a snapshot; it takes no lock.
func (e *Endpoint) Stats() Stats {
	s := Stats{Queues: make([]QueueStats, len(e.queues))}
	for i, q := range e.queues {
		s.Queues[i] = QueueStats{Rx: q.rxStats.snapshot(), Tx: q.txStats.snapshot()}
	}
	for i := range e.drops {
		s.Drops[i] = e.drops[i].Load()
	}
	return s
}

// Features returns the offloads in use: the device's, less what it refused since.
func (e *Endpoint) Features() tundev.Features {
	f := e.features
	f.TSO4, f.TSO6 = f.TSO4 && e.tso.Load(), f.TSO6 && e.tso.Load()
	return f
}

// merges reports whether inbound frames are worth merging.
func (e *Endpoint) merges() bool { return !(e.features.TSO4 && e.features.TSO6) && e.MTU() <= mergeMTU }

func (e *Endpoint) drop(r DropReason) { e.drops[r].Add(1) }

// MTU implements stack.LinkEndpoint.
func (e *Endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint.
func (e *Endpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// MaxHeaderLength implements stack.LinkEndpoint: a TUN has no link header.
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
	frames, bytes, superframes, superframeBytes, partial, software, refused, merged, verified atomic.Uint64
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
		Verified:        c.verified.Load(),
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
