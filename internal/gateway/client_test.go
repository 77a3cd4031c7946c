package gateway_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/tundev/tuntest"
)

// The client's addresses.
var (
	client4 = netip.MustParseAddr("198.18.0.1")
	client6 = netip.MustParseAddr("fd00:18::1")
)

// client is a host beyond the device: a gVisor stack.
type client struct {
	t    testing.TB
	gv   *stack.Stack
	link hostLink
}

// hostLink is the gateway's own link endpoint for a stack that is none: it owns
// its addresses alone, and computes checksums where the link would not.
type hostLink struct{ *link.Endpoint }

func (hostLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

const clientNIC tcpip.NICID = 1

// newClient puts a host on the device until the test ends.
func newClient(t testing.TB, dev *tuntest.Device) *client {
	t.Helper()
	c := &client{
		t:    t,
		link: hostLink{link.New(link.Options{Device: dev})},
		gv: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
	}
	// gVisor's RACK forgets to send again; the gateway sees to its own alone.
	recovery := tcpip.TCPRecovery(0)
	c.must(c.gv.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery))
	c.must(c.gv.CreateNIC(clientNIC, c.link))
	for _, a := range []netip.Addr{client4, client6} {
		c.must(c.gv.AddProtocolAddress(clientNIC, tcpip.ProtocolAddress{
			Protocol:          protocolOf(a),
			AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}))
	}
	c.gv.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: clientNIC},
		{Destination: header.IPv6EmptySubnet, NIC: clientNIC},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.link.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = dev.Close()
		if err := <-done; err != nil {
			t.Errorf("the client's link: %v", err)
		}
		c.gv.Destroy()
	})
	return c
}

func (c *client) must(err tcpip.Error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// setReceiveBuffer bounds what connections made from now on hold unread.
func (c *client) setReceiveBuffer(n int) {
	c.t.Helper()
	o := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: n, Max: n}
	c.must(c.gv.SetTransportProtocolOption(tcp.ProtocolNumber, &o))
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: clientNIC, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// conn is a client's connection. gonet has no way to reset one.
type conn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
}

// reset sends RST.
func (c *conn) reset() {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true})
	_ = c.Close()
}

// dial connects; the error is an errno.
func (c *client) dial(to netip.AddrPort) (*conn, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	return c.dialContext(ctx, to)
}

func (c *client) dialContext(ctx context.Context, to netip.AddrPort) (*conn, error) {
	c.t.Helper()
	var wq waiter.Queue
	ep, err := c.gv.NewEndpoint(tcp.ProtocolNumber, protocolOf(to.Addr()), &wq)
	c.must(err)
	entry, decided := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	err = ep.Connect(fullAddress(to))
	if _, ok := err.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-decided:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		}
	}
	if err != nil {
		ep.Close()
		return nil, errnoOf(err)
	}
	return &conn{gonet.NewTCPConn(&wq, ep), ep}, nil
}

// errnoOf names the errors that a dial is expected to end with.
func errnoOf(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: &net.AddrError{Err: err.String()}}
}

// mustDial connects, and closes with the test.
func (c *client) mustDial(to netip.AddrPort) *conn {
	c.t.Helper()
	conn, err := c.dial(to)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// udpConn is a client's connected UDP socket.
type udpConn struct {
	*gonet.UDPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

func (c *client) dialUDP(to netip.AddrPort) *udpConn {
	c.t.Helper()
	wq := new(waiter.Queue)
	ep, err := c.gv.NewEndpoint(udp.ProtocolNumber, protocolOf(to.Addr()), wq)
	c.must(err)
	c.must(ep.Connect(fullAddress(to)))
	conn := &udpConn{gonet.NewUDPConn(wq, ep), ep, wq}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// failure sends b and returns the error that ICMP brings, which gonet does not
// look for; nil if none comes in time.
func (c *udpConn) failure(b []byte) error {
	entry, failed := waiter.NewChannelEntry(waiter.EventErr)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	if _, err := c.Write(b); err != nil {
		return err
	}
	timeout := time.NewTimer(wait.Patience)
	defer timeout.Stop()
	select {
	case <-failed:
		return errnoOf(c.ep.LastError())
	case <-timeout.C:
		return nil
	}
}
