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
	own    []netip.Addr // the gateway's, beside the host's
	self   selfAddresses
}

func newPolicy(allow []Class, own ...netip.Addr) *policy {
	p := &policy{denied: make(map[Class]bool), own: own, self: selfAddresses{list: hostAddresses, now: time.Now}}
	for _, c := range Classes() {
		p.denied[c] = !slices.Contains(allow, c)
	}
	return p
}

// deniedClass returns a class that forbids a, "" if none does.
func (p *policy) deniedClass(a netip.Addr) Class {
	if c := classOf(a); c != "" && p.denied[c] {
		return c
	}
	// An address in an IPv6 form must not reach what its IPv4 form may not.
	if v4, ok := embeddedV4(a); ok {
		if p.denied[ClassEmbedded] {
			return ClassEmbedded
		}
		if c := p.deniedClass(v4); c != "" {
			return c
		}
	}
	if p.denied[ClassSelf] && (slices.Contains(p.own, a) || p.self.contains(a)) {
		return ClassSelf
	}
	return ""
}

// metadata are the instance metadata addresses outside 169.254.0.0/16 and
// fe80::/10.
var metadata = []netip.Addr{ //nolint:gochecknoglobals // constant
	netip.AddrFrom4([4]byte{100, 100, 100, 200}),                           // Alibaba Cloud
	netip.AddrFrom4([4]byte{168, 63, 129, 16}),                             // Azure's WireServer
	netip.AddrFrom4([4]byte{192, 0, 0, 192}),                               // Oracle Cloud, old images
	netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}), // AWS: fd00:ec2::254
	netip.AddrFrom16([16]byte{0xfd, 0x20, 0x00, 0xce, 14: 0x02, 15: 0x54}), // Google Cloud: fd20:ce::254
}

// classOf returns the class that a's range is, "" if none.
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
	}
	return ""
}

// The IPv6 prefixes of addresses that carry an IPv4 address.
//
//nolint:gochecknoglobals // constants
var (
	sixToFour = netip.MustParsePrefix("2002::/16") // RFC 3056
	teredo    = netip.MustParsePrefix("2001::/32") // RFC 4380
	endInV4   = [...]netip.Prefix{                 // in their last 32 bits
		netip.MustParsePrefix("::/96"),           // IPv4-compatible (RFC 4291)
		netip.MustParsePrefix("::ffff:0:0:0/96"), // IPv4-translated (RFC 2765)
		netip.MustParsePrefix("64:ff9b::/96"),    // NAT64 (RFC 6052)
		netip.MustParsePrefix("64:ff9b:1::/48"),  // local NAT64 (RFC 8215), as a rule cut into /96
	}
)

// embeddedV4 extracts the IPv4 address of the IPv6 forms that carry one: those
// above, IPv4-mapped (RFC 4291) and ISATAP (RFC 5214).
func embeddedV4(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() || a.IsUnspecified() || a == netip.IPv6Loopback() {
		return netip.Addr{}, false
	}
	b := a.As16()
	last := [4]byte(b[12:])
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	// An ISATAP interface identifier's "u" bit says if the IPv4 address is
	// global.
	isatap := [4]byte{b[8] &^ 2, b[9], b[10], b[11]} == [4]byte{0, 0, 0x5e, 0xfe}
	switch {
	case a.Is4In6(), isatap, slices.ContainsFunc(endInV4[:], contains):
		return netip.AddrFrom4(last), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(a): // with every bit inverted
		return netip.AddrFrom4([4]byte{^last[0], ^last[1], ^last[2], ^last[3]}), true
	}
	return netip.Addr{}, false
}

// selfAddresses is the set of the host's own addresses, read again when it is old.
type selfAddresses struct {
	list    func() ([]netip.Addr, error)
	now     func() time.Time
	current atomic.Pointer[addressSet]
	mu      sync.Mutex // held while reading
}

type addressSet struct {
	at    time.Time
	addrs map[netip.Addr]bool
}

func (s *selfAddresses) contains(a netip.Addr) bool {
	set := s.current.Load()
	if set == nil || s.now().Sub(set.at) > selfAge {
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
	set := &addressSet{at: s.now(), addrs: make(map[netip.Addr]bool)}
	addrs, err := s.list()
	if err != nil && old != nil {
		set.addrs = old.addrs
	}
	for _, a := range addrs {
		// Loopback has a class of its own, which may be open when this one
		// is not.
		if !a.IsLoopback() {
			set.addrs[a] = true
		}
	}
	s.current.Store(set)
	return set
}

// hostAddresses asks the kernel for the addresses of every interface.
func hostAddresses() ([]netip.Addr, error) {
	ifaddrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(ifaddrs))
	for _, ia := range ifaddrs {
		if n, ok := ia.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, a.Unmap())
			}
		}
	}
	return addrs, nil
}
