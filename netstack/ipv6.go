package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// newIPv6 is gVisor's IPv6 with one difference: addresses that promiscuous mode
// makes on the way, one for each destination in use, never become source addresses
// of their own accord. gVisor would list them as such, and walks that list when
// one goes: 14 us of every connection to 10,000 destinations. Here each
// destination is named by whoever uses it, so nobody asks for that list.
func newIPv6(s *stack.Stack) stack.NetworkProtocol { return protocol6{ipv6.NewProtocol(s)} }

type protocol6 struct{ stack.NetworkProtocol }

// NewEndpoint implements stack.NetworkProtocol.
func (p protocol6) NewEndpoint(nic stack.NetworkInterface, d stack.TransportDispatcher) stack.NetworkEndpoint {
	ep := p.NetworkProtocol.NewEndpoint(nic, d)
	addressable, ok := ep.(stack.AddressableEndpoint)
	group, groupOK := ep.(stack.GroupAddressableEndpoint)
	if !ok || !groupOK {
		panic("netstack: gVisor's IPv6 endpoint is not what it was")
	}
	return endpoint6{ep, addressable, group}
}

// endpoint6 has what the NIC asks of an endpoint: the rest (multicast forwarding,
// duplicate address detection) has no use behind a point-to-point device.
type endpoint6 struct {
	stack.NetworkEndpoint
	stack.AddressableEndpoint
	stack.GroupAddressableEndpoint
}

// AcquireAssignedAddress implements stack.AddressableEndpoint.
func (e endpoint6) AcquireAssignedAddress(a tcpip.Address, temporary bool, _ stack.PrimaryEndpointBehavior, readOnly bool) stack.AddressEndpoint {
	return e.AddressableEndpoint.AcquireAssignedAddress(a, temporary, stack.NeverPrimaryEndpoint, readOnly)
}
