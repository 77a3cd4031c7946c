package proxy

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// selfAge is how old the list of the host's own addresses may be. An address that
// came up since is dialled at worst for so long; reading the list costs ~100 us.
const selfAge = 5 * time.Second

// policy decides which destinations may be dialled.
type policy struct {
	denied map[Class]bool
	self   selfAddresses
}

func newPolicy(allow []Class) *policy {
	p := &policy{denied: make(map[Class]bool)}
	for _, c := range Classes() {
		p.denied[c] = !slices.Contains(allow, c)
	}
	return p
}

// deniedClass returns the class that forbids a, "" if none does.
func (p *policy) deniedClass(a netip.Addr) Class {
	if c := classOf(a); c != "" && p.denied[c] {
		return c
	}
	// An address in an IPv6 form must not reach what its IPv4 form may not.
	if v4, ok := embeddedV4(a); ok {
		if c := p.deniedClass(v4); c != "" {
			return c
		}
	}
	if p.denied[ClassSelf] && p.self.contains(a) {
		return ClassSelf
	}
	return ""
}

// metadata are the instance metadata addresses outside 169.254.0.0/16: Alibaba
// Cloud's, and AWS's for IPv6.
var metadata = []netip.Addr{ //nolint:gochecknoglobals // constant
	netip.AddrFrom4([4]byte{100, 100, 100, 200}),
	netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 15: 0x54, 14: 0x02}),
}

// classOf returns the class of a that the numbers alone tell, "" if none.
func classOf(a netip.Addr) Class {
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback():
		return ClassLoopback
	case a.IsMulticast():
		return ClassMulticast
	case a.IsLinkLocalUnicast(), slices.Contains(metadata, a):
		return ClassLinkLocal
	}
	if a.Is4() {
		switch b := a.As4(); {
		case b[0] == 0: // Linux connects 0.0.0.0/8 to itself
			return ClassLoopback
		case b == [4]byte{255, 255, 255, 255}:
			return ClassMulticast
		}
		return ""
	}
	if _, ok := embeddedV4(a); ok {
		return ClassEmbedded
	}
	return ""
}

// embeddedV4 extracts the IPv4 address of the IPv6 forms that carry one:
// ::ffff:0:0/96 and ::/96 (RFC 4291), 64:ff9b::/96 (RFC 6052), 2002::/16
// (RFC 3056), 2001::/32 (RFC 4380, the client's address inverted).
func embeddedV4(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() || a.IsUnspecified() || a.IsLoopback() {
		return netip.Addr{}, false
	}
	b := a.As16()
	last := netip.AddrFrom4([4]byte(b[12:]))
	zero := func(from, to int) bool {
		for _, x := range b[from:to] {
			if x != 0 {
				return false
			}
		}
		return true
	}
	switch {
	case a.Is4In6(), zero(0, 12):
		return last, true
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b && zero(4, 12):
		return last, true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0:
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}

// selfAddresses is the set of the host's own addresses, read again when it is old.
type selfAddresses struct {
	current atomic.Pointer[addressSet]
	mu      sync.Mutex // held while reading
}

type addressSet struct {
	at    time.Time
	addrs map[netip.Addr]bool
}

func (s *selfAddresses) contains(a netip.Addr) bool {
	set := s.current.Load()
	if set == nil || time.Since(set.at) > selfAge {
		set = s.refresh(set)
	}
	return set.addrs[a]
}

// refresh reads the list unless another goroutine just did. A list that cannot be
// read leaves the old one in force.
func (s *selfAddresses) refresh(old *addressSet) *addressSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.current.Load(); set != old {
		return set
	}
	set := &addressSet{at: time.Now(), addrs: make(map[netip.Addr]bool)}
	ifaddrs, err := net.InterfaceAddrs()
	if err != nil && old != nil {
		set.addrs = old.addrs
	}
	for _, ia := range ifaddrs {
		if n, ok := ia.(*net.IPNet); ok {
			// Loopback has a class of its own, which may be open when
			// this one is not.
			if a, ok := netip.AddrFromSlice(n.IP); ok && !a.Unmap().IsLoopback() {
				set.addrs[a.Unmap()] = true
			}
		}
	}
	s.current.Store(set)
	return set
}
