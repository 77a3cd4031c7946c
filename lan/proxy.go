package lan

import "net/netip"

// answers reports whether questions for a are answered, and whether by proxy.
func (l *LAN) answers(a netip.Addr) (ok, proxied bool) {
	if l.isOwn(a) {
		return true, false
	}
	return l.proxies(a), true
}

// proxies reports whether a is an address behind the gateway. Never is one that a
// guest has, by what is known, nor one of a kind that no router forwards (RFC
// 3927, section 7; RFC 4291, section 2.5.6).
func (l *LAN) proxies(a netip.Addr) bool {
	if l.options.Proxy == ProxyOwn || !unicast(a) || a.IsLinkLocalUnicast() || l.isGuests(a) {
		return false
	}
	switch l.options.Proxy {
	case ProxyPrefixes:
		return contains(l.options.ProxyPrefixes, a)
	case ProxyOffLink:
		return !l.isOnLink(a)
	case ProxyAll:
		return !l.isReservedHost(a)
	case ProxyOwn:
	}
	return false
}

// isGuests reports whether a guest has a, or will when it comes back.
func (l *LAN) isGuests(a netip.Addr) bool {
	k := keyOf(a)
	return l.neighbors.find(k) != nil || l.holder(k, l.resolver.open[k]) != 0
}

// isReservedHost reports whether a is the address or the broadcast address of an
// IPv4 network on the link.
func (l *LAN) isReservedHost(a netip.Addr) bool {
	for _, p := range l.onLink {
		if a.Is4() && p.Contains(a) && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastOf(p)) {
			return true
		}
	}
	return false
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
