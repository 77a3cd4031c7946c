package lan

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Bounds of options.
const (
	minMTU     = 68 // RFC 791
	minMTUv6   = 1280
	minMTUDHCP = 576 // what a DHCP client is ready for (RFC 2131, section 2)
	maxMTU     = 65535

	maxTable = 1 << 20 // entries; about 200 bytes each

	minNeighborTTL = 5 * time.Second // asking again may take 3
	minLeaseTime   = time.Minute     // clients renew at half of it
	maxLeaseTime   = 10 * 365 * 24 * time.Hour

	// What a DHCP client must be ready for is 548 bytes (RFC 2131, section 2), and
	// what IPv6 carries for sure is 1280. These let all options fit; a test adds up.
	maxDNS      = 8
	maxRoutes   = 10
	maxNetworks = 32
)

// faults collects what Validate finds.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

// between checks a number that may be zero for its default.
func (f *faults) between(field string, v, least, most int) {
	if v != 0 && (v < least || v > most) {
		f.add(field, "%d is not between %d and %d", v, least, most)
	}
}

// lasts checks a duration that may be zero for its default.
func (f *faults) lasts(field string, v, least, most time.Duration) {
	if v != 0 && (v < least || v > most) {
		f.add(field, "%v is not between %v and %v", v, least, most)
	}
}

// networks checks prefixes for bits below their mask.
func (f *faults) networks(field string, ps []netip.Prefix) {
	for i, p := range ps {
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			f.add(fmt.Sprintf("%s[%d]", field, i), "%v is no network", p)
		case p != p.Masked():
			f.add(fmt.Sprintf("%s[%d]", field, i), "%v has bits below its mask; the network is %v", p, p.Masked())
		}
	}
}

// servers checks the addresses of DNS servers.
func (f *faults) servers(field string, as []netip.Addr, v6 bool) {
	if len(as) > maxDNS {
		f.add(field, "%d servers are more than %d", len(as), maxDNS)
	}
	for i, a := range as {
		if a.Is6() != v6 || !unicast(a) || a.Zone() != "" {
			f.add(fmt.Sprintf("%s[%d]", field, i), "%v is no unicast IPv%d address", a, family(v6))
		}
	}
}

func family(v6 bool) int {
	if v6 {
		return 6
	}
	return 4
}

// Validate reports every fault in o, joined; each begins with the field's path.
func (o *Options) Validate() error {
	var f faults
	if o.MAC.IsGroup() {
		f.add("mac", "%v is a group's address; the lowest bit of the first byte must be 0", o.MAC)
	}
	v4, v6 := o.validateAddresses(&f)
	f.networks("on_link", o.OnLink)
	o.validateMTU(&f, v6)
	o.validateProxy(&f)
	f.between("max_neighbors", o.MaxNeighbors, 1, maxTable)
	f.between("max_per_station", o.MaxPerStation, 1, maxTable)
	f.between("max_pending", o.MaxPending, 1, maxTable)
	f.lasts("neighbor_ttl", o.NeighborTTL, minNeighborTTL, maxLeaseTime)
	o.RA.validate(&f)
	if n := len(o.announced()); o.RA.On && n > maxNetworks {
		f.add("ra.on", "%d networks do not fit a router advertisement, %d do", n, maxNetworks)
	}
	if o.RA.On && !v6 {
		f.add("ra.on", "there is no IPv6 address in addresses to announce")
	}
	o.DHCP.validate(&f)
	if o.DHCP.On && !v4 {
		f.add("dhcp.on", "there is no IPv4 address in addresses to serve from")
	}
	if o.DHCP.On && v4 {
		o.validatePool(&f)
	}
	return errors.Join(f...)
}

func (o *Options) validateAddresses(f *faults) (v4, v6 bool) {
	if len(o.Addresses) == 0 {
		f.add("addresses", "the gateway needs one, such as 198.18.0.1/15")
	}
	seen := map[netip.Addr]bool{}
	for i, p := range o.Addresses {
		field := fmt.Sprintf("addresses[%d]", i)
		a := p.Addr()
		switch {
		case !p.IsValid() || !unicast(a):
			f.add(field, "%v is no unicast address with the length of its network", p)
		case seen[a]:
			f.add(field, "%v is there twice", a)
		case a.Is4() && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastOf(p)):
			f.add(field, "%v is the network's own or its broadcast address", p)
		}
		seen[a] = true
		v4 = v4 || a.Is4()
		v6 = v6 || a.Is6()
	}
	return v4, v6
}

func (o *Options) validateMTU(f *faults, v6 bool) {
	switch {
	case o.MTU == 0:
	case o.MTU < minMTU || o.MTU > maxMTU:
		f.add("mtu", "%d is not between %d and %d", o.MTU, minMTU, maxMTU)
	case v6 && o.MTU < minMTUv6:
		f.add("mtu", "%d is less than the %d of IPv6 (RFC 8200, section 5)", o.MTU, minMTUv6)
	case o.DHCP.On && o.MTU < minMTUDHCP:
		f.add("mtu", "%d is less than the %d of DHCP (RFC 2131, section 2)", o.MTU, minMTUDHCP)
	}
}

func (o *Options) validateProxy(f *faults) {
	if int(o.Proxy) >= len(proxyNames) {
		f.add("proxy", "%d is no mode", o.Proxy)
	}
	if o.Proxy == ProxyPrefixes && len(o.ProxyPrefixes) == 0 {
		f.add("proxy_prefixes", "proxy: prefixes needs one")
	}
	if o.Proxy != ProxyPrefixes && len(o.ProxyPrefixes) > 0 {
		f.add("proxy_prefixes", "only proxy: prefixes takes any")
	}
	f.networks("proxy_prefixes", o.ProxyPrefixes)
}

func (o *RAOptions) validate(f *faults) {
	// RFC 4861, section 6.2.1.
	f.lasts("ra.max_interval", o.MaxInterval, 4*time.Second, 1800*time.Second)
	d := o.withDefaults()
	f.lasts("ra.min_interval", o.MinInterval, 3*time.Second, d.MaxInterval*3/4)
	if o.RouterLifetime > 0 {
		f.lasts("ra.router_lifetime", o.RouterLifetime, d.MaxInterval, 9000*time.Second)
	}
	f.lasts("ra.preferred_lifetime", o.PreferredLifetime, d.MaxInterval, maxLeaseTime)
	f.lasts("ra.valid_lifetime", o.ValidLifetime, d.PreferredLifetime, maxLeaseTime)
	f.servers("ra.dns", o.DNS, true)
}

func (o *DHCPOptions) validate(f *faults) {
	f.lasts("dhcp.lease_time", o.LeaseTime, minLeaseTime, maxLeaseTime)
	f.between("dhcp.max_leases", o.MaxLeases, 1, maxTable)
	f.between("dhcp.max_per_station", o.MaxPerStation, 1, maxTable)
	f.servers("dhcp.dns", o.DNS, false)
	if len(o.Routes) > maxRoutes {
		f.add("dhcp.routes", "%d routes are more than %d", len(o.Routes), maxRoutes)
	}
	for i, r := range o.Routes {
		if !r.Prefix.IsValid() || !r.Prefix.Addr().Is4() || r.Prefix != r.Prefix.Masked() || r.Via.IsValid() && !unicast4(r.Via) {
			f.add(fmt.Sprintf("dhcp.routes[%d]", i), "%v via %v is no IPv4 route", r.Prefix, r.Via)
		}
	}
}

// validatePool checks what the DHCP server hands out against the network it does
// so in.
func (o *Options) validatePool(f *faults) {
	d := &o.DHCP
	if d.First.IsValid() != d.Last.IsValid() {
		f.add("dhcp.first", "first and last come together or not at all")
		return
	}
	server, ok := o.dhcpServer()
	switch {
	case !ok:
		f.add("dhcp.first", "%v is in no network of addresses", d.First)
		return
	case server.Bits() > 30:
		f.add("dhcp.on", "%v leaves no address for guests", server)
		return
	case d.First.IsValid() && (!server.Contains(d.Last) || d.Last.Less(d.First)):
		f.add("dhcp.last", "%v is not behind %v in %v", d.Last, d.First, server.Masked())
	}
	taken := map[netip.Addr]MAC{}
	for _, mac := range slices.SortedFunc(maps.Keys(d.Reserved), func(a, b MAC) int { return bytes.Compare(a[:], b[:]) }) {
		a := d.Reserved[mac]
		field := fmt.Sprintf("dhcp.reserved[%v]", mac)
		if mac.IsGroup() || mac == (MAC{}) {
			f.add(field, "no station has this address")
		}
		if !server.Contains(a) || a == server.Masked().Addr() || a == lastOf(server) || a == server.Addr() {
			f.add(field, "%v is no guest's address in %v", a, server.Masked())
		}
		if other, dup := taken[a]; dup {
			f.add(field, "%v is reserved for %v too", a, other)
		}
		taken[a] = mac
	}
}

// dhcpServer is the address of the gateway that the DHCP server uses, with the
// network it serves.
func (o *Options) dhcpServer() (netip.Prefix, bool) {
	for _, p := range o.Addresses {
		if p.IsValid() && p.Addr().Is4() && (!o.DHCP.First.IsValid() || p.Contains(o.DHCP.First)) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// lastOf is the last address of an IPv4 network, which is its broadcast address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// unicast reports whether a host on a link may own a: not unspecified, loopback,
// multicast, 0/8, 240/4 nor an IPv4 address in IPv6's clothes.
func unicast(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() {
		return false
	}
	return a.Is6() || unicast4(a)
}

func unicast4(a netip.Addr) bool {
	if !a.Is4() || a.IsLoopback() {
		return false
	}
	b := a.As4()
	return b[0] != 0 && b[0] < 224
}
