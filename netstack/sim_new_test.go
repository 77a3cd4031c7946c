package netstack_test

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

// newSim makes a world of the seed's choice.
func newSim(t *testing.T, seed uint64) *sim {
	t.Helper()
	s := &sim{
		T: t, rnd: rand.New(rand.NewPCG(seed, 0)), current: map[tuple]*script{},
		verbose: os.Getenv("SIM_TRACE") != "",
	}
	rnd := s.rnd
	s.bursts = rnd.IntN(2) == 0
	mtu := []tundev.MTU{1280, 1500, 1500, 9000}[rnd.IntN(4)]
	dev := tuntest.Options{
		MTU: mtu, Queues: 1 + rnd.IntN(2), NoTSO: rnd.IntN(2) == 0, NoChecksum: rnd.IntN(4) == 0,
		Depth: []int{500, 500, 8}[rnd.IntN(3)], FullEvery: []int{0, 0, 25}[rnd.IntN(3)],
	}
	s.wire = wire{
		s: s, faults: newFaults(rnd), device: tuntest.New(dev), queues: dev.Queues,
		client: channel.New(100_000, uint32(mtu), ""), boxes: map[tuple]*middlebox{}, dead: map[tuple]bool{}, last: map[tuple]*script{}, sender: map[tuple]*script{},
	}
	s.client = newClients(t, s, rnd)
	var h flow.Handler = simHandler{s}
	if rnd.IntN(2) == 0 {
		h = simStarter{simHandler{s}}
	}
	var err error
	o := newOptions(rnd)
	if s.wire.faults.reorder > 0 { // see newScript
		o.TCP.ReceiveBuffer = 0
	}
	s.logf("%+v\n%+v\n%+v", dev, s.wire.faults, o)
	if s.stack, err = netstack.New(s.wire.device, h, o, netstack.Deps{Clock: &s.clock}); err != nil {
		t.Fatal(err)
	}
	return s
}

// newFaults is a network: perfect, like most, or bad.
func newFaults(rnd *rand.Rand) faults {
	f := faults{delay: upTo(rnd, 100*time.Millisecond)}
	if rnd.IntN(10) == 0 {
		return f
	}
	some := func(most float64) float64 { return rnd.Float64() * most * float64(rnd.IntN(2)) }
	f.loss, f.duplicate, f.reorder, f.corrupt = some(0.1), some(0.1), some(0.2), some(0.01)
	f.jitter, f.late = upTo(rnd, 50*time.Millisecond), upTo(rnd, 500*time.Millisecond)
	if rnd.IntN(3) == 0 {
		f.outage = upTo(rnd, 5*time.Second)
	}
	return f
}

// oneOf returns one of vs.
func oneOf[T any](rnd *rand.Rand, vs ...T) T { return vs[rnd.IntN(len(vs))] }

func newOptions(rnd *rand.Rand) netstack.Options {
	second := time.Second
	return netstack.Options{
		MaxHalfOpen: oneOf(rnd, 0, 0, 2),
		Overflow:    oneOf(rnd, netstack.OverflowCookies, netstack.OverflowCookies, netstack.OverflowDrop, netstack.OverflowReset),
		Dial:        oneOf(rnd, netstack.DialFirst, netstack.DialAfter),
		TCP: netstack.TCPOptions{
			CongestionControl: oneOf(rnd, "cubic", "reno"), MSS: oneOf(rnd, 0, 0, 536, 1300),
			KeepaliveIdle: 20 * second, KeepaliveInterval: 5 * second, KeepaliveCount: 4,
			ReceiveBuffer: oneOf(rnd, 0, 0, 4096, 65536), SendBuffer: oneOf(rnd, 0, 0, 4096, 65536),
		},
		Handshake: netstack.HandshakeOptions{
			DeferAccept: oneOf(rnd, 0, 0, second), TimeWait: oneOf(rnd, 0, 5*second), FinTimeout: oneOf(rnd, 0, 5*second),
			MaxTimeWait: oneOf(rnd, 0, 0, 3), MaxOrphans: oneOf(rnd, 0, 0, 2),
		},
	}
}

// newClients makes the stack of the clients.
func newClients(t *testing.T, s *sim, rnd *rand.Rand) *stack.Stack {
	t.Helper()
	st := stack.New(stack.Options{
		Clock:              &s.clock,
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	if err := st.CreateNIC(1, s.wire.client); err != nil {
		t.Fatal(err)
	}
	st.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	for _, a := range []tcpip.ProtocolAddress{
		{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom4(simClient4.As4()).WithPrefix()},
		{Protocol: ipv6.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom16(simClient6.As16()).WithPrefix()},
	} {
		if err := st.AddProtocolAddress(1, a, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	sack := tcpip.TCPSACKEnabled(rnd.IntN(4) > 0)
	s.hasty = rnd.IntN(2) == 0
	wait := tcpip.TCPTimeWaitTimeoutOption(10 * time.Second)
	if s.hasty {
		wait = tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	}
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 4 << 20}
	recovery := tcpip.TCPRecovery(0) // RACK forgets its timer
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &wait, &rcv, &recovery} {
		if err := st.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// start runs the stack under test, and returns what ends everything.
func (s *sim) start() (stop func()) {
	ended := make(chan error, 1)
	go func() { ended <- s.stack.Run() }()
	return func() {
		if err := s.stack.Close(); err != nil {
			s.fail("Close: %v", err)
		}
		_ = s.wire.device.Close()
		if err := <-ended; err != nil {
			s.fail("Run: %v", err)
		}
		s.client.Destroy()
		s.wire.client.Close()
	}
}
