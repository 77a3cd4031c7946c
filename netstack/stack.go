package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/tundev"
)

// nicID is the one NIC's.
const nicID tcpip.NICID = 1

// abortEvery is how often Close looks for connections that began meanwhile.
const abortEvery = 10 * time.Millisecond

// Device is what the stack needs of a device; *tundev.Device is one.
type Device = link.Device

// Deps are what a Stack is given besides its options.
type Deps struct {
	// Loop reads the device, if it has a descriptor; nil lets goroutines do it.
	Loop *loop.Loop
	// LAN is the Ethernet side of a TAP, which it must have; nil for a TUN.
	LAN *lan.LAN
	// Clock is what everything but the LAN goes by, for simulations; nil is the
	// machine's.
	Clock tcpip.Clock
}

// Stack terminates what comes from a device. It implements flow.DatagramWriter.
type Stack struct {
	opts    Options
	gv      *stack.Stack
	link    *link.Endpoint
	handler flow.Handler
	loop    *loop.Loop
	flows   *minisock.Table

	attempts    attempts
	closing     closing
	userTimeout tcpip.TCPUserTimeoutOption // as each endpoint is told it

	draining, shedding atomic.Bool // new connections are refused

	ctx    context.Context //nolint:containedctx // ends with the Stack and goes to every handler
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool           // no handler starts once set; guarded by mu
	handlers sync.WaitGroup // running HandleTCP calls

	counters counters
	budget   budget
}

// counters are Stats while they count.
type counters struct {
	established, late                                          atomic.Int64 // late: being dialled after their handshake
	bulk                                                       atomic.Int64 // established flows that carry much to their clients
	lateLimit                                                  atomic.Uint64
	accepted, refused, dropped, failed, connLimit              atomic.Uint64
	dgramIn, dgramOut, byteIn, byteOut, dgramBad, dgramRejects atomic.Uint64
}

// New makes a stack over dev that hands its flows to h. Nothing moves until Run.
func New(dev Device, h flow.Handler, o Options, d Deps) (*Stack, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if (dev.Kind() == tundev.TAP) != (d.LAN != nil) {
		return nil, errors.New("netstack: a TAP needs Deps.LAN, and a TUN has none")
	}
	o = o.withDefaults()
	if d.Clock == nil {
		d.Clock = newClock()
	}
	s := &Stack{
		opts:    o,
		budget:  budget{limit: o.TCP.BufferBudget},
		handler: h,
		loop:    d.Loop,

		userTimeout: tcpip.TCPUserTimeoutOption(o.TCP.UserTimeout),
		gv: stack.New(stack.Options{
			Clock:              d.Clock,
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
	}
	table := o.flows()
	table.DelayACKs = true // the link ends the delay
	flows, err := minisock.New(table, s)
	if err != nil {
		return nil, err
	}
	s.flows = flows
	s.closing.init()
	s.link = link.New(link.Options{
		Device:  dev,
		LAN:     d.LAN,
		Flows:   flows,
		Owner:   s,
		Sources: o.Sources,
		Loop:    d.Loop,
		Pin:     o.PinReaders,
		Clock:   s.gv.Clock(),
	})
	s.ctx, s.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close, not by who made it
	if err := s.configure(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// configure sets up protocols, the NIC and the hooks.
func (s *Stack) configure() error {
	if err := s.configureTCP(); err != nil {
		return err
	}
	if err := s.gv.CreateNIC(nicID, s.link); err != nil {
		return fmt.Errorf("netstack: NIC: %w", translate(err))
	}
	everyV4 := tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber,
		// Any address serves, since the prefix holds them all; this one is
		// never a source, because every answer comes from where the client
		// sent to. RFC 5737 keeps it out of the real world.
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4([4]byte{192, 0, 2, 255}), PrefixLen: 0},
	}
	if err := s.gv.AddProtocolAddress(nicID, everyV4, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("netstack: address: %w", translate(err))
	}
	// For IPv6 alone: IPv4 always finds the address above first.
	if err := s.gv.SetPromiscuousMode(nicID, true); err != nil {
		return fmt.Errorf("netstack: promiscuous mode: %w", translate(err))
	}
	if err := s.gv.SetSpoofing(nicID, true); err != nil {
		return fmt.Errorf("netstack: spoofing: %w", translate(err))
	}
	s.setRoutes(s.link.MTU())
	s.gv.SetTransportProtocolHandler(udp.ProtocolNumber, s.receiveDatagram)
	if err := s.calibrate(); err != nil {
		return fmt.Errorf("netstack: what the stack announces: %w", translate(err))
	}
	return nil
}

// Run serves the device until Close (nil) or until the device fails. A device that
// no loop reads must be closed, too, to let Run return.
func (s *Stack) Run() error {
	ctx, cancel := context.WithCancel(s.ctx)
	var sweep sync.WaitGroup
	sweep.Go(func() { s.closing.run(ctx, s.flows, s.link) })
	sweep.Go(func() { s.probe(ctx) })
	err := s.link.Run(s.ctx)
	cancel()
	sweep.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Features returns the device's offloads in use: one that the device refused since
// the start is off.
func (s *Stack) Features() tundev.Features { return s.link.Features() }

// setRoutes gives each family its default route. A route's MTU is the only place
// where gVisor lets the MSS be less than the device's MTU allows.
func (s *Stack) setRoutes(mtu uint32) {
	v4 := tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID}
	v6 := tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID}
	if mss := uint32(s.opts.TCP.MSS); mss != 0 { //nolint:gosec // validated
		v4.MTU = min(mtu, mss+header.IPv4MinimumSize+header.TCPMinimumSize)
		v6.MTU = max(header.IPv6MinimumMTU, min(mtu, mss+header.IPv6MinimumSize+header.TCPMinimumSize))
	}
	s.gv.SetRouteTable([]tcpip.Route{v4, v6})
}

// SetMTU follows a change of the device's MTU: connections from now on offer an MSS
// that fits it.
func (s *Stack) SetMTU(mtu tundev.MTU) {
	s.link.SetMTU(uint32(mtu))
	s.setRoutes(uint32(mtu))
	_ = s.calibrate() // as before, if it cannot be found out
}

// LinkUp is to be called when the device's link comes up: on a TAP, guests are told
// of the gateway.
func (s *Stack) LinkUp() { s.link.LinkUp() }

// Replace serves d from the next Run on, connections and counters surviving. It
// must be called after Run has returned because its device went.
func (s *Stack) Replace(d Device) {
	s.link.Replace(d)
	s.SetMTU(d.MTU())
}

// Drain answers every new connection attempt with RST from now on, and leaves
// what is established alone.
func (s *Stack) Drain() {
	s.draining.Store(true)
	s.refuse()
}

// Shed does the same for as long as it is on: memory is short.
func (s *Stack) Shed(on bool) {
	s.shedding.Store(on)
	s.refuse()
}

func (s *Stack) refuse() { s.flows.SetRefusing(s.draining.Load() || s.shedding.Load()) }

// Pending is how many connections a drain has to wait for: those that are open, and
// when none is, those that were closed here but whose client has not acknowledged
// the last of what it was sent.
func (s *Stack) Pending() int {
	states := s.flows.Stats().States
	n := states[minisock.Creating]
	if open := s.counters.established.Load(); open > 0 {
		return int(open) + n
	}
	for _, state := range []minisock.State{minisock.Established, minisock.CloseWait, minisock.FinWait1, minisock.Closing, minisock.LastAck} {
		n += states[state] // our FIN waits behind bytes, or for its acknowledgement
	}
	return n
}

// Close resets every connection, ends every handler's context and returns after
// the last of them. Datagrams and packets are ignored from then on.
func (s *Stack) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.endHandlers()
	s.gv.Destroy()
	return nil
}

// endHandlers aborts attempts and connections until no handler runs. A handler that
// had dialled may begin a handshake after the first round, which nobody would end.
func (s *Stack) endHandlers() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.handlers.Wait()
	}()
	again := time.NewTicker(abortEvery)
	defer again.Stop()
	for {
		for _, a := range s.attempts.snapshot() {
			a.fail(net.ErrClosed)
		}
		s.gv.Close()
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

// Stats returns a snapshot; it takes no lock of the data path.
func (s *Stack) Stats() Stats {
	c := &s.counters
	t := s.gv.Stats().TCP
	f := s.flows.Stats()
	v4, v6 := s.gv.Stats().ICMP.V4, s.gv.Stats().ICMP.V6
	return Stats{
		Link:              s.link.Stats(),
		Flows:             f,
		Established:       int(c.established.Load()),
		Accepted:          c.accepted.Load(),
		Refused:           c.refused.Load(),
		Dropped:           c.dropped.Load(),
		HandshakeFailed:   c.failed.Load(),
		HalfOpenLimit:     f.Counters[minisock.BacklogFull] + f.Counters[minisock.SourceShare] + f.Counters[minisock.DestinationShare] + c.lateLimit.Load(),
		ConnectionLimit:   c.connLimit.Load(),
		BufferGrowth:      s.budget.used.Load(),
		BufferBudget:      s.budget.limit,
		DatagramsIn:       c.dgramIn.Load(),
		DatagramsOut:      c.dgramOut.Load(),
		DatagramBytesIn:   c.byteIn.Load(),
		DatagramBytesOut:  c.byteOut.Load(),
		DatagramsBad:      c.dgramBad.Load(),
		DatagramsRejected: c.dgramRejects.Load(),
		TCP: TCPStats{
			SegmentsReceived:      t.ValidSegmentsReceived.Value(),
			SegmentsSent:          t.SegmentsSent.Value(),
			SegmentSendErrors:     t.SegmentSendErrors.Value(),
			Retransmits:           t.Retransmits.Value(),
			FastRetransmits:       t.FastRetransmit.Value(),
			SlowStartRetransmits:  t.SlowStartRetransmits.Value(),
			Timeouts:              t.Timeouts.Value(),
			ResetsSent:            t.ResetsSent.Value(),
			ResetsReceived:        t.ResetsReceived.Value(),
			InvalidSegments:       t.InvalidSegmentsReceived.Value(),
			ChecksumErrors:        t.ChecksumErrors.Value(),
			CurrentEstablished:    t.CurrentEstablished.Value(),
			CurrentConnected:      t.CurrentConnected.Value(),
			EstablishedResets:     t.EstablishedResets.Value(),
			EstablishedTimedout:   t.EstablishedTimedout.Value(),
			FailedPortReservation: t.FailedPortReservations.Value(),
		},
		ICMP: ICMPStats{
			EchoReceived:        v4.PacketsReceived.EchoRequest.Value() + v6.PacketsReceived.EchoRequest.Value(),
			EchoRepliesSent:     v4.PacketsSent.EchoReply.Value() + v6.PacketsSent.EchoReply.Value(),
			UnreachableSent:     v4.PacketsSent.DstUnreachable.Value() + v6.PacketsSent.DstUnreachable.Value(),
			UnreachableReceived: v4.PacketsReceived.DstUnreachable.Value() + v6.PacketsReceived.DstUnreachable.Value(),
			RateLimited:         v4.PacketsSent.RateLimited.Value() + v6.PacketsSent.RateLimited.Value(),
		},
	}
}

// addrPort makes a netip address of a gVisor one.
func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}

// address makes a gVisor address of a netip one.
func address(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

func networkProtocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
