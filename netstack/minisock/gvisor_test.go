package minisock

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/offload"
)

// sim is two stacks with a table between them: one plays the clients, endpoints of
// the other are made by active opens. All checksums are full, and both stacks verify
// them.
type sim struct {
	*testing.T
	table          *Table
	client, server *stack.Stack
	up, down       *channel.Endpoint // the client's link, and the server's
	start          time.Time
	running        sync.WaitGroup

	local Local

	mu    sync.Mutex
	gone  int
	chaos *rand.Rand // nil: the wire is perfect
	ends  []tcpip.Endpoint
	serve func(wq *waiter.Queue, ep tcpip.Endpoint)
}

func newSim(t *testing.T, o Options) *sim {
	t.Helper()
	s := &sim{T: t, start: time.Now(), serve: echo}
	s.client, s.up = simStack(t)
	s.server, s.down = simStack(t)
	for _, p := range []pair{flow4, flow6} {
		a := tcpip.ProtocolAddress{Protocol: network(p), AddressWithPrefix: full(p.src).Addr.WithPrefix()}
		if err := s.client.AddProtocolAddress(1, a, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	s.server.SetPromiscuousMode(1, true)
	s.server.SetSpoofing(1, true)
	s.calibrate()
	o.Local = s.local
	var err error
	if s.table, err = New(o, s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.running.Go(func() { s.pump(ctx, s.up, s.fromClient) })
	s.running.Go(func() { s.pump(ctx, s.down, s.fromServer) })
	s.running.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			s.table.Tick(s.now())
		}
	})
	t.Cleanup(func() {
		s.client.Destroy()
		s.server.Destroy()
		cancel()
		s.running.Wait()
		s.up.Close()
		s.down.Close()
	})
	return s
}

func simStack(t *testing.T) (*stack.Stack, *channel.Endpoint) {
	t.Helper()
	st := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	link := channel.New(8192, 1500, "")
	if err := st.CreateNIC(1, link); err != nil {
		t.Fatal(err)
	}
	st.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	return st, link
}

func network(p pair) tcpip.NetworkProtocolNumber {
	if p.src.Addr().Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// connect makes an endpoint by an active open towards a client.
func (s *sim) connect(p pair) (*waiter.Queue, tcpip.Endpoint) {
	wq := new(waiter.Queue)
	ep, err := s.server.NewEndpoint(tcp.ProtocolNumber, network(p), wq)
	if err == nil {
		ep.SocketOptions().SetReuseAddress(true)
		err = ep.Bind(full(p.dst))
	}
	if err == nil {
		err = ep.Connect(full(p.src))
	}
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
		s.Errorf("connect: %v", err)
	}
	return wq, ep
}

// calibrate learns from a throw-away connect what the stack announces.
func (s *sim) calibrate() {
	for _, p := range []pair{flow4, flow6} {
		_, ep := s.connect(p)
		b := take1(s.down)
		g := decode(s, b)
		s.local.Window, s.local.WindowScale = g.wnd, uint8(g.syn.WindowScale)
		if p == flow4 {
			s.local.MSS4 = g.syn.MSS
		} else {
			s.local.MSS6 = g.syn.MSS
		}
		ep.Abort()
		s.down.Drain()
	}
}

func take1(link *channel.Endpoint) []byte {
	pkt := link.Read()
	defer pkt.DecRef()
	return append([]byte(nil), pkt.ToView().AsSlice()...)
}

func (s *sim) now() time.Duration { return time.Since(s.start) }

func inject(link *channel.Endpoint, b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(append([]byte(nil), b...))})
	proto := ipv4.ProtocolNumber
	if b[0]>>4 == 6 {
		proto = ipv6.ProtocolNumber
	}
	link.InjectInbound(proto, pkt)
	pkt.DecRef()
}

// Emit implements Sink.
func (s *sim) Emit(b []byte, _ uint16) {
	for range s.copies() {
		inject(s.up, b)
	}
}

// copies is how often the wire delivers a packet.
func (s *sim) copies() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chaos == nil {
		return 1
	}
	switch s.chaos.IntN(25) {
	case 0:
		return 0
	case 1:
		return 2
	}
	return 1
}

func (s *sim) Ended(_, _ netip.AddrPort, why Cause)  { s.Error("a connection was ended:", why) }
func (s *sim) Stalled(_, _ netip.AddrPort, _ uint16) {}

// Gone implements Sink.
func (s *sim) Gone(Handle, uint32, Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone++
}

// pump takes packets from a link until ctx is done.
func (s *sim) pump(ctx context.Context, link *channel.Endpoint, take func(b []byte)) {
	for {
		pkt := link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		b := append([]byte(nil), pkt.ToView().AsSlice()...)
		pkt.DecRef()
		take(b)
	}
}

// segment describes a packet; false if it is none of TCP.
func (s *sim) segment(b []byte) (Segment, bool) {
	var p offload.Packet
	if offload.Parse(&p, b, len(b)) != offload.OK || p.Proto != offload.ProtoTCP {
		return Segment{}, false
	}
	return FromPacket(&p, &offload.Hdr{}, b, 0), true
}

func (s *sim) fromClient(b []byte) {
	for range s.copies() {
		s.inbound(append([]byte(nil), b...))
	}
}

func (s *sim) inbound(b []byte) {
	sg, ok := s.segment(b)
	if !ok {
		return
	}
	switch res := s.table.Inbound(&sg, s.now()); res.Verdict {
	case Pass:
		inject(s.down, b)
	case Dial:
		s.table.Answer(res.Handle, s.now())
	case Create:
		s.create(res, &sg, b)
	case Hold:
		s.Error("a packet to hold, with one reader that creates at once")
	case Dropped, Swallowed, Later, NumVerdicts:
	}
}

func (s *sim) fromServer(b []byte) {
	sg, ok := s.segment(b)
	if !ok {
		return
	}
	res := s.table.Outbound(&sg, s.now())
	if res.Gone { // before the client can know, and come back
		s.mu.Lock()
		ep := s.ends[res.Owner-1]
		s.mu.Unlock()
		ep.Abort()
	}
	if res.Verdict == Pass {
		s.Emit(b, 0)
	}
}

func (s *sim) create(res Result, sg *Segment, b []byte) {
	open, ok := s.table.Open(res.Handle)
	if !ok {
		s.Error("no record")
		return
	}
	wq, ep := s.connect(pair{open.Client, open.Destination})
	s.mu.Lock()
	s.ends = append(s.ends, ep)
	s.table.SetOwner(res.Handle, uint32(len(s.ends)))
	s.mu.Unlock()
	var synAck []byte
	for synAck, ok = s.table.Establish(res.Handle, s.now(), nil); !ok; synAck, ok = s.table.Establish(res.Handle, s.now(), nil) {
		runtime.Gosched() // the SYN goes through the other pump
	}
	inject(s.down, synAck)
	if res.Held && s.table.Resume(sg, s.now()).Verdict == Pass {
		inject(s.down, b)
	}
	if ok, _ := s.table.Ready(res.Handle, s.now()); !ok {
		s.Error("not ready")
	}
	s.running.Go(func() { s.serve(wq, ep) })
}

// TestGVisorReuse: a server closes first, and its client comes back from the same port
// at once, again and again.
func TestGVisorReuse(t *testing.T) {
	for _, p := range []pair{flow4, flow6} {
		s := newSim(t, Options{})
		s.mu.Lock()
		s.serve = func(wq *waiter.Queue, ep tcpip.Endpoint) {
			c := established(wq, ep)
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
		s.mu.Unlock()
		const n = 100
		for i := range n {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			c, err := gonet.DialTCPWithBind(ctx, s.client, full(p.src), full(p.dst), network(p))
			cancel()
			if err != nil {
				t.Fatalf("connect %d: %v", i, err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			got, err := io.ReadAll(c)
			if string(got) != "hello" || err != nil {
				t.Fatalf("connection %d: %q, %v", i, got, err)
			}
			_ = c.Close()
			s.eventually(func() bool {
				return s.table.Stats().States[TimeWait] == 1 && s.client.Stats().TCP.CurrentConnected.Value() == 0
			})
		}
		if got := s.table.Stats().Counters[TimeWaitReused]; got != n-1 {
			t.Errorf("%d of %d reuses", got, n-1)
		}
	}
}

// echo returns what it gets until the client's FIN, and ends then.
func echo(wq *waiter.Queue, ep tcpip.Endpoint) {
	c := established(wq, ep)
	_, _ = io.Copy(c, c)
	_ = c.Close()
}

// established waits until the stack has the SYN-ACK: what is written before is lost.
func established(wq *waiter.Queue, ep tcpip.Endpoint) *gonet.TCPConn {
	entry, ready := waiter.NewChannelEntry(waiter.EventOut | waiter.EventHUp)
	wq.EventRegister(&entry)
	for ep.Readiness(waiter.EventOut|waiter.EventHUp) == 0 {
		<-ready
	}
	wq.EventUnregister(&entry)
	return gonet.NewTCPConn(wq, ep)
}

// TestGVisor: bytes go there and back unchanged through two real stacks, over both
// families and each way into a connection.
func TestGVisor(t *testing.T) {
	for name, o := range map[string]Options{
		"dial after": {}, "dial first": {Admission: DialFirst}, "cookies": {AlwaysCookies: true},
		"defer accept": {DeferAccept: time.Second},
	} {
		for _, p := range []pair{flow4, flow6} {
			t.Run(name+"/"+p.dst.String(), func(t *testing.T) {
				s := newSim(t, o)
				for range 3 {
					s.exchange(p, 300_000)
				}
				s.eventually(func() bool {
					st := s.table.Stats().States
					return st[Linger]+st[TimeWait] == s.table.Stats().Records
				})
				for range 3 {
					s.table.Tick(s.now() + 2*time.Minute)
				}
				if st := s.table.Stats(); st.Records != 0 || st.Counters[ChallengedACK]+st.Counters[OldTimestamp]+st.Counters[OldResetOut] != 0 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// TestGVisorLossy: the same over a wire that loses a packet in 25 each way and
// delivers another twice.
func TestGVisorLossy(t *testing.T) {
	for _, p := range []pair{flow4, flow6} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(p.dst, seed), func(t *testing.T) {
				s := newSim(t, Options{AlwaysCookies: seed%2 == 1})
				s.mu.Lock()
				s.chaos = rand.New(rand.NewPCG(seed, 7))
				s.mu.Unlock()
				for range 2 {
					s.exchange(p, 60_000)
				}
				if n := s.table.Stats().Counters[Malformed]; n != 0 {
					t.Errorf("%d malformed", n)
				}
			})
		}
	}
}

func (s *sim) eventually(done func() bool) {
	s.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			s.Fatalf("never: %+v", s.table.Stats().States)
		}
	}
}

// exchange sends n bytes and wants them back.
func (s *sim) exchange(p pair, n int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, s.client, full(p.dst), network(p))
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(sent)
	var writer sync.WaitGroup
	writer.Go(func() {
		if _, err := c.Write(sent); err != nil {
			s.Error(err)
		}
		_ = c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	writer.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		s.Fatalf("%d bytes of %d came back, %v", len(got), n, err)
	}
}
