package netstack

import (
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tungate/tungate/netstack/minisock"
)

// probe lets the table of flows probe silent clients until ctx is done.
func (s *Stack) probe(ctx context.Context) {
	timer := s.link.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		next := s.flows.Probe(s.link.Now())
		if next == minisock.Never {
			return
		}
		timer.Reset(next - s.link.Now())
	}
}

// EndIdle resets up to most connections, those first whose clients have been silent
// for longest, and none that was not for least. Their handlers see ECONNABORTED. It
// returns how many these were.
func (s *Stack) EndIdle(most int, least time.Duration) int {
	return s.flows.EndIdle(most, least, s.link.Now())
}

// Ended implements minisock.Sink: a connection's endpoint follows its record. No other
// can have its tuple before this one has left it.
func (s *Stack) Ended(client, destination netip.AddrPort, why minisock.Cause) {
	ep := s.endpoint(client, destination)
	switch {
	case ep == nil: // it ended at the same time
	case why == minisock.ClientSilent:
		timeOut(ep)
	default:
		ep.Abort()
	}
}

// Stalled implements minisock.Sink.
func (s *Stack) Stalled(client, destination netip.AddrPort, mtu uint16) {
	if ep, ok := s.endpoint(client, destination).(stack.TransportEndpoint); ok {
		ep.HandleError(&tooBig{mtu: uint32(mtu)}, nil)
	}
}

// tooBig is the error that a packet was longer than mtu, without IP's header.
type tooBig struct {
	tcpip.LocalSockError
	mtu uint32
}

// Kind implements stack.TransportError.
func (*tooBig) Kind() stack.TransportErrorKind { return stack.PacketTooBigTransportError }

// Info implements tcpip.SockErrorCause.
func (t *tooBig) Info() uint32 { return t.mtu }

// endpoint returns the endpoint of a connection, or nil.
func (s *Stack) endpoint(client, destination netip.AddrPort) tcpip.Endpoint {
	id := stack.TransportEndpointID{
		LocalAddress: address(destination.Addr()), LocalPort: destination.Port(),
		RemoteAddress: address(client.Addr()), RemotePort: client.Port(),
	}
	ep, _ := s.gv.FindTransportEndpoint(networkProtocol(client.Addr()), tcp.ProtocolNumber, id, nicID).(tcpip.Endpoint)
	return ep
}

// timeOut ends an endpoint by ETIMEDOUT. gVisor has no call for that, but its own
// keepalive does it, at once if it may send no probe.
func timeOut(ep tcpip.Endpoint) {
	now := tcpip.KeepaliveIdleOption(time.Nanosecond)
	_ = ep.SetSockOpt(&now)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, 0)
	ep.SocketOptions().SetKeepAlive(true)
}
