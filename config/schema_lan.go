package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/tungate/tungate/lan"
)

func lanFields(o *lan.Options) []field {
	return slices.Concat([]field{
		{
			"lan.addresses", &list[prefix]{&o.Addresses, addressRule()}, "none, and a TAP needs one",
			"Addresses of the gateway on the link of a TAP, each with its network. Guests have addresses in these networks, and the gateway for their router. Not those of the host's own end, which are device.addresses.",
		},
		{
			"lan.on_link", &list[prefix]{&o.OnLink, networkRule()}, "none",
			"Further networks whose addresses are guests', or behind a guest that routes.",
		},
		{
			"lan.mac", &scalar[lan.MAC]{&o.MAC, macRule()}, "made of lan.addresses",
			"Ethernet address of the gateway.",
		},
		{
			"lan.proxy", oneOf(&o.Proxy, lan.ProxyOwn, lan.ProxyPrefixes, lan.ProxyOffLink, lan.ProxyAll), lan.ProxyOwn.String(),
			"For which addresses, beside the gateway's own, ARP and neighbor discovery are answered. own: none; prefixes: those in lan.proxy_prefixes; off-link: those in no network of the link; all: every one that no guest has.",
		},
		{
			"lan.proxy_prefixes", &list[prefix]{&o.ProxyPrefixes, networkRule()}, "none",
			"Networks for lan.proxy prefixes.",
		},
		{
			"lan.max_neighbors", number(&o.MaxNeighbors, 1, maxTable, ""), "4096",
			"Addresses whose Ethernet address is remembered. At the bound the one not heard of for longest goes.",
		},
		{
			"lan.max_per_station", number(&o.MaxPerStation, 1, maxTable, ""), "256",
			"Those of one Ethernet address.",
		},
		{
			"lan.neighbor_ttl", duration(&o.NeighborTTL), "2m",
			"Silence after which an address is forgotten, and asked for when there is something to send.",
		},
		{
			"lan.max_pending", number(&o.MaxPending, 1, maxTable, ""), "256",
			"Packets that wait for a guest to answer, and addresses asked for at once.",
		},
	}, raFields(&o.RA), dhcpFields(&o.DHCP))
}

func raFields(o *lan.RAOptions) []field {
	return []field{
		{
			"lan.ra.on", boolean(&o.On), "false",
			"Send router advertisements, by which IPv6 guests find their router, addresses and DNS servers.",
		},
		{
			"lan.ra.max_interval", duration(&o.MaxInterval), "10m",
			"Longest time between two that nobody asked for.",
		},
		{
			"lan.ra.min_interval", duration(&o.MinInterval), "a third of max_interval",
			"Shortest time between two that nobody asked for.",
		},
		{
			"lan.ra.router_lifetime", durationOrOff(&o.RouterLifetime), "three times max_interval",
			"How long a guest keeps the default route. off: no default route.",
		},
		{
			"lan.ra.preferred_lifetime", duration(&o.PreferredLifetime), "45m, or three times max_interval if that is more",
			"How long guests use addresses of an announced network for new connections (RFC 9096).",
		},
		{
			"lan.ra.valid_lifetime", duration(&o.ValidLifetime), "twice preferred_lifetime",
			"How long they use them at all.",
		},
		{
			"lan.ra.dns", &list[netip.Addr]{&o.DNS, addrRule()}, "none",
			"IPv6 addresses of DNS servers announced.",
		},
	}
}

func dhcpFields(o *lan.DHCPOptions) []field {
	return []field{
		{
			"lan.dhcp.on", boolean(&o.On), "false",
			"Serve DHCPv4 to guests.",
		},
		{
			"lan.dhcp.first", &scalar[netip.Addr]{&o.First, addrRule()}, "the first of the network",
			"First address of the pool.",
		},
		{
			"lan.dhcp.last", &scalar[netip.Addr]{&o.Last, addrRule()}, "the last of the network",
			"Last address of the pool.",
		},
		{
			"lan.dhcp.lease_time", duration(&o.LeaseTime), "1h",
			"How long an address is a guest's unless renewed.",
		},
		{
			"lan.dhcp.dns", &list[netip.Addr]{&o.DNS, addrRule()}, "none",
			"IPv4 addresses of DNS servers told to guests.",
		},
		{
			"lan.dhcp.routes", &list[lan.Route]{&o.Routes, routeRule()}, "none",
			"Routes told to guests that ask (option 121), beside the default route: a network, and an address after via, or the gateway.",
		},
		{
			"lan.dhcp.reserved", &mapping[lan.MAC, netip.Addr]{&o.Reserved, macRule(), addrRule()}, "none",
			"Addresses that one guest alone gets, by its Ethernet address.",
		},
		{
			"lan.dhcp.max_leases", number(&o.MaxLeases, 1, maxTable, ""), "4096",
			"Leases remembered.",
		},
		{
			"lan.dhcp.max_per_station", number(&o.MaxPerStation, 1, maxTable, ""), "8",
			"Those of one Ethernet address.",
		},
	}
}

func addrRule() rule[netip.Addr] {
	return rule[netip.Addr]{
		parse: func(s string) (netip.Addr, error) {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return a, errors.New("is no numeric address")
			}
			return a.Unmap(), nil
		},
		format: netip.Addr.String, allowed: "a numeric address, such as 198.18.0.53 or fd00:18::53",
	}
}

func macRule() rule[lan.MAC] {
	return rule[lan.MAC]{
		parse: func(s string) (m lan.MAC, err error) {
			if m.UnmarshalText([]byte(s)) != nil {
				err = errors.New("is no Ethernet address")
			}
			return m, err
		},
		format: lan.MAC.String, allowed: "an Ethernet address, such as 02:00:00:00:00:01",
	}
}

// routeRule reads a network, and the router to it after via.
func routeRule() rule[lan.Route] {
	network, addr := networkRule(), addrRule()
	return rule[lan.Route]{
		parse: func(s string) (r lan.Route, err error) {
			to, via, found := strings.Cut(s, " via ")
			if found {
				if r.Via, err = addr.parse(strings.TrimSpace(via)); err != nil {
					return r, err
				}
			}
			r.Prefix, err = network.parse(strings.TrimSpace(to))
			return r, err
		},
		format: func(r lan.Route) string {
			if r.Via.IsValid() {
				return r.Prefix.String() + " via " + r.Via.String()
			}
			return r.Prefix.String()
		},
		allowed: "a network such as 10.0.0.0/8, or a network and its router such as 10.0.0.0/8 via 198.18.0.9",
	}
}
