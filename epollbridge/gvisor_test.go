package epollbridge_test

import (
	"bytes"
	"io"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// The buffers of every connection in a lab: small, so that filling them is quick.
const (
	sendBuffer    = 64 << 10
	receiveBuffer = 256 << 10
)

// lab is two stacks joined in memory: a client's and a server's.
type lab struct {
	client, server *stack.Stack
	port           uint16
}

var (
	clientAddr = tcpip.AddrFrom4([4]byte{198, 18, 0, 1})
	serverAddr = tcpip.AddrFrom4([4]byte{198, 18, 0, 2})
)

// newLab returns a lab that the end of the test takes down.
func newLab(t testing.TB) *lab {
	l := makeLab()
	t.Cleanup(l.close)
	return l
}

func makeLab() *lab {
	const mtu = 1500
	a, b := pipe.New("", "", mtu)
	return &lab{client: newStack(a, clientAddr), server: newStack(b, serverAddr), port: 1000}
}

func (l *lab) close() {
	l.client.Destroy()
	l.server.Destroy()
}

func newStack(link stack.LinkEndpoint, addr tcpip.Address) *stack.Stack {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	must(s.CreateNIC(1, link))
	must(s.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: addr.WithPrefix(),
	}, stack.AddressProperties{}))
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: sendBuffer, Max: sendBuffer}
	must(s.SetTransportProtocolOption(tcp.ProtocolNumber, &send))
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: receiveBuffer, Max: receiveBuffer}
	must(s.SetTransportProtocolOption(tcp.ProtocolNumber, &receive))
	return s
}

// must is for calls that fail only if the lab is built wrongly.
func must(err tcpip.Error) {
	if err != nil {
		panic(err.String())
	}
}

// socket is a gVisor endpoint with what it takes to add it to a Poller.
type socket struct {
	ep     tcpip.Endpoint
	source epollbridge.Source
	reg    epollbridge.Registration
}

func newSocket(ep tcpip.Endpoint, wq *waiter.Queue) *socket {
	return &socket{ep: ep, source: epollbridge.Source{Endpoint: ep, Queue: wq}}
}

// watch adds s to p.
func (s *socket) watch(t testing.TB, p *epollbridge.Poller, e epollbridge.Events, data uint64) {
	t.Helper()
	if err := p.Add(&s.reg, &s.source, e, data); err != nil {
		t.Fatalf("Add: %v", err)
	}
}

func endpoint(s *stack.Stack, proto tcpip.TransportProtocolNumber) *socket {
	wq := new(waiter.Queue)
	ep, err := s.NewEndpoint(proto, ipv4.ProtocolNumber, wq)
	must(err)
	return newSocket(ep, wq)
}

// listen returns a listening socket of the server, and its address.
func (l *lab) listen() (*socket, tcpip.FullAddress) {
	l.port++
	addr := tcpip.FullAddress{NIC: 1, Addr: serverAddr, Port: l.port}
	wq := new(waiter.Queue)
	return newSocket(l.listener(addr, wq), wq), addr
}

// listener returns a listening endpoint of the server.
func (l *lab) listener(addr tcpip.FullAddress, wq *waiter.Queue) tcpip.Endpoint {
	ep, err := l.server.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	must(err)
	must(ep.Bind(addr))
	must(ep.Listen(128))
	return ep
}

// echo sends what to addr, with the client's FIN after it, and returns what comes
// back until the server's.
func (l *lab) echo(addr tcpip.FullAddress, what string) string {
	c, err := gonet.DialTCP(l.client, addr, ipv4.ProtocolNumber)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	go func() {
		_, _ = io.WriteString(c, what)
		_ = c.CloseWrite()
	}()
	back, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(back)
}

// dial begins a connection of the client to addr.
func (l *lab) dial(addr tcpip.FullAddress) *socket {
	s := endpoint(l.client, tcp.ProtocolNumber)
	if _, ok := s.ep.Connect(addr).(*tcpip.ErrConnectStarted); !ok {
		panic("Connect did not start")
	}
	return s
}

// accept returns the next connection of a listening socket, nil if none is there.
func (s *socket) accept() *socket {
	ep, wq, err := s.ep.Accept(nil)
	if err != nil {
		return nil
	}
	return newSocket(ep, wq)
}

// connection returns both ends of a new one, and closes them when the test ends.
func (l *lab) connection(t testing.TB) (client, server *socket) {
	t.Helper()
	listener, addr := l.listen()
	defer listener.ep.Close()
	client = l.dial(addr)
	l.settle()
	if server = listener.accept(); server == nil {
		t.Fatal("no connection to accept")
	}
	t.Cleanup(client.ep.Abort)
	t.Cleanup(server.ep.Abort)
	return client, server
}

// settle returns when both stacks have handled every segment. A stack that pauses
// handles first what it has; if no segment was sent between two times when both
// were paused, none is left.
func (l *lab) settle() {
	for last := uint64(0); ; {
		l.client.Pause()
		l.server.Pause()
		sent := l.client.Stats().TCP.SegmentsSent.Value() + l.server.Stats().TCP.SegmentsSent.Value()
		l.server.Resume()
		l.client.Resume()
		if sent == last {
			return
		}
		last = sent
	}
}

// write writes n bytes, and returns how many were taken.
func (s *socket) write(n int) (int, tcpip.Error) {
	m, err := s.ep.Write(bytes.NewReader(make([]byte, n)), tcpip.WriteOptions{})
	return int(m), err
}

// read reads up to n bytes, and returns how many there were.
func (s *socket) read(n int) (int, tcpip.Error) {
	w := tcpip.SliceWriter(make([]byte, n))
	total := n
	for len(w) > 0 {
		if _, err := s.ep.Read(&w, tcpip.ReadOptions{}); err != nil {
			if len(w) < total {
				break
			}
			return 0, err
		}
	}
	return total - len(w), nil
}

// ready reports whether s is ready for e. Readiness says more than it was asked.
func (s *socket) ready(e waiter.EventMask) bool { return s.ep.Readiness(e)&e != 0 }

// fill writes until nothing is taken.
func (l *lab) fill(s *socket) (total int) {
	for {
		n, err := s.write(16 << 10)
		total += n
		if err == nil {
			continue
		}
		if _, ok := err.(*tcpip.ErrWouldBlock); !ok {
			panic(err.String())
		}
		if l.settle(); !s.ready(waiter.EventOut) {
			return total
		}
	}
}

// drain reads until nothing comes any more.
func (l *lab) drain(s *socket) (total int) {
	for {
		n, err := s.read(64 << 10)
		total += n
		if n > 0 {
			continue
		}
		_, more := err.(*tcpip.ErrWouldBlock)
		if l.settle(); !more || !s.ready(waiter.EventIn) {
			return total
		}
	}
}
