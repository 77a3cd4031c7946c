// Package baseline terminates TCP as gVisor does by itself: its own link (fdbased)
// reads a frame and delivers it, the stack cuts its segments and sums them up, and
// each leaves by a write of its own. It is what package link's work on a device
// without virtio_net_hdr is measured against, and nothing else uses it.
package baseline

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nicID tcpip.NICID = 1
	// buffers is the largest a connection's buffers grow, as in package netstack.
	buffers     = 4 << 20
	maxHalfOpen = 64
)

// Serve terminates IPv4 over fd, a TUN device without virtio_net_hdr, and gives every
// connection to serve, on a goroutine of its own. It goes on until the process ends.
func Serve(fd int, mtu uint32, serve func(*Conn)) error {
	ep, err := fdbased.New(&fdbased.Options{FDs: []int{fd}, MTU: mtu})
	if err != nil {
		return err
	}
	gv := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC},
	})
	if err := configure(gv); err != nil {
		return err
	}
	forwarder := tcp.NewForwarder(gv, 0, maxHalfOpen, func(r *tcp.ForwarderRequest) {
		if c, err := accept(r); err == nil {
			serve(c)
		}
	})
	gv.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	if err := gv.CreateNIC(nicID, ep); err != nil {
		return fail("NIC", err)
	}
	if err := gv.SetPromiscuousMode(nicID, true); err != nil {
		return fail("promiscuous mode", err)
	}
	if err := gv.SetSpoofing(nicID, true); err != nil {
		return fail("spoofing", err)
	}
	return nil
}

// configure sets what package netstack sets, too, where it matters to one flow.
func configure(gv *stack.Stack) error {
	gv.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}})
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultReceiveBufferSize, Max: buffers}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultSendBufferSize, Max: buffers}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd} {
		if err := gv.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fail("TCP option", err)
		}
	}
	return nil
}

// accept completes the handshake.
func accept(r *tcp.ForwarderRequest) (*Conn, error) {
	c := &Conn{port: r.ID().LocalPort}
	ep, err := r.CreateEndpoint(&c.wq)
	r.Complete(err != nil)
	if err != nil {
		return nil, fail("accept", err)
	}
	c.ep = ep
	c.entry.Init(c, waiter.EventIn|waiter.EventOut|waiter.EventErr|waiter.EventHUp)
	c.wq.EventRegister(&c.entry)
	return c, nil
}

func fail(what string, err tcpip.Error) error { return fmt.Errorf("baseline: %s: %s", what, err) }
