package link

import (
	"net/netip"

	"github.com/tungate/tungate/offload"
)

// guard is the martian filter (RFC 1812, section 5.3.7; RFC 4291, section 2.5),
// which gVisor switches off for an endpoint with CapabilityLoopback, and keeps out
// what the stack behind it would take on trust.
type guard struct {
	sources []netip.Prefix
}

// check returns the reason to drop p, and true, or false to let it pass.
func (g *guard) check(p *offload.Packet) (DropReason, bool) {
	switch {
	case p.Dst.IsMulticast():
		return DropMulticast, true
	case !unicast(p.Src) || !g.allowed(p.Src):
		return DropSource, true
	case !unicast(p.Dst):
		return DropDestination, true
	case p.Fragment && p.Proto == offload.ProtoTCP:
		// gVisor would take the reassembled segment for verified. TCP has no
		// need of fragments (RFC 9293, section 3.7.2: it does path MTU discovery).
		return DropFragment, true
	case p.Src == p.Dst && p.SrcPort == p.DstPort && p.L4Len != 0:
		return DropLand, true
	}
	return 0, false
}

func (g *guard) allowed(src netip.Addr) bool {
	if len(g.sources) == 0 {
		return true
	}
	for _, p := range g.sources {
		if p.Contains(src) {
			return true
		}
	}
	return false
}

// unicast reports whether a host may own a: not unspecified, loopback, multicast,
// "this network" 0/8 (RFC 1122, section 3.2.1.3) nor reserved 240/4, which holds
// the broadcast address; for IPv6 not an IPv4-mapped one (RFC 4291, 2.5.5.2).
func unicast(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() {
		return false
	}
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && b[0] < 240
	}
	return true
}
