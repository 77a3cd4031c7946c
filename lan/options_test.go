package lan

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestValidate has a row for each fault, by the first words of its message.
func TestValidate(t *testing.T) {
	many := func(n int, s string) (as []netip.Addr) {
		for range n {
			as = append(as, ip(s))
		}
		return as
	}
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { *o = Options{Addresses: o.Addresses} }, ""},
		{func(o *Options) { o.MAC = broadcast() }, "mac: "},
		{func(o *Options) { o.Addresses = nil }, "addresses: the gateway needs one"},
		{func(o *Options) { o.Addresses[0] = netip.Prefix{} }, "addresses[0]: "},
		{func(o *Options) { o.Addresses[0] = network("224.0.0.1/24") }, "addresses[0]: "},
		{func(o *Options) { o.Addresses[1] = network("::1/64") }, "addresses[1]: "},
		{func(o *Options) { o.Addresses[0] = network("198.18.0.0/24") }, "addresses[0]: "},
		{func(o *Options) { o.Addresses[0] = network("198.18.0.255/24") }, "addresses[0]: "},
		{func(o *Options) { o.Addresses[0] = network("198.18.0.0/31") }, ""},
		{func(o *Options) { o.Addresses = append(o.Addresses, o.Addresses[0]) }, "addresses[2]: 198.18.0.1 is there twice"},
		{func(o *Options) { o.OnLink = []netip.Prefix{network("10.0.0.1/8")} }, "on_link[0]: 10.0.0.1/8 has bits below its mask; the network is 10.0.0.0/8"},
		{func(o *Options) { o.OnLink = []netip.Prefix{{}} }, "on_link[0]: "},
		{func(o *Options) { o.MTU = 1279 }, "mtu: 1279 is less than the 1280 of IPv6"},
		{func(o *Options) { o.MTU = -1 }, "mtu: -1 is not between 68 and 65535"},
		{func(o *Options) { o.MTU = 65536 }, "mtu: "},
		{func(o *Options) { o.MTU, o.Addresses = 68, o.Addresses[:1] }, ""},
		{func(o *Options) { o.MTU, o.Addresses, o.DHCP.On = 575, o.Addresses[:1], true }, "mtu: 575 is less than the 576 of DHCP"},
		{func(o *Options) { o.Proxy = 4 }, "proxy: 4 is no mode"},
		{func(o *Options) { o.Proxy = ProxyPrefixes }, "proxy_prefixes: "},
		{func(o *Options) { o.ProxyPrefixes = []netip.Prefix{network("10.0.0.0/8")} }, "proxy_prefixes: only "},
		{func(o *Options) { o.MaxNeighbors = -1 }, "max_neighbors: "},
		{func(o *Options) { o.MaxPerStation = 1<<20 + 1 }, "max_per_station: "},
		{func(o *Options) { o.MaxPending = -5 }, "max_pending: "},
		{func(o *Options) { o.NeighborTTL = time.Second }, "neighbor_ttl: 1s is not between 5s and "},
		{func(o *Options) { o.RA.On, o.Addresses = true, o.Addresses[:1] }, "ra.on: there is no IPv6"},
		{func(o *Options) { o.RA.MaxInterval = time.Hour }, "ra.max_interval: "},
		{func(o *Options) { o.RA.MinInterval = 451 * time.Second }, "ra.min_interval: 7m31s is not between 3s and 7m30s"},
		{func(o *Options) { o.RA.RouterLifetime = time.Second }, "ra.router_lifetime: 1s is not between 10m0s and 2h30m0s"},
		{func(o *Options) { o.RA.RouterLifetime = -1 }, ""},
		{func(o *Options) { o.RA.PreferredLifetime = time.Minute }, "ra.preferred_lifetime: "},
		{func(o *Options) { o.RA.ValidLifetime = 44 * time.Minute }, "ra.valid_lifetime: 44m0s is not between 45m0s and "},
		{func(o *Options) { o.RA.DNS = []netip.Addr{gateway4} }, "ra.dns[0]: 198.18.0.1 is no unicast IPv6 address"},
		{func(o *Options) { o.RA.DNS = many(9, "fd00::53") }, "ra.dns: 9 servers are more than 8"},
		{func(o *Options) {
			o.RA.On = true
			for i := range byte(33) {
				o.Addresses = append(o.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: i + 1, 15: 1}), 64))
			}
		}, "ra.on: 34 networks do not fit"},
		{func(o *Options) { o.DHCP.On, o.Addresses = true, o.Addresses[1:] }, "dhcp.on: there is no IPv4"},
		{func(o *Options) { o.DHCP.LeaseTime = time.Second }, "dhcp.lease_time: "},
		{func(o *Options) { o.DHCP.MaxLeases = -1 }, "dhcp.max_leases: "},
		{func(o *Options) { o.DHCP.MaxPerStation = -1 }, "dhcp.max_per_station: "},
		{func(o *Options) { o.DHCP.DNS = []netip.Addr{gateway6} }, "dhcp.dns[0]: "},
		{func(o *Options) { o.DHCP.Routes = slices.Repeat([]Route{{Prefix: network("10.0.0.0/8")}}, 11) }, "dhcp.routes: 11 routes are more than 10"},
		{func(o *Options) { o.DHCP.Routes = []Route{{Prefix: network("2001:db8::/32")}} }, "dhcp.routes[0]: "},
		{func(o *Options) { o.DHCP.Routes = []Route{{network("10.0.0.0/8"), gateway6}} }, "dhcp.routes[0]: "},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, First: a4} }, "dhcp.first: first and last come together"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, First: far4, Last: far4} }, "dhcp.first: 192.0.2.1 is in no network"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, First: b4, Last: a4} }, "dhcp.last: 198.18.0.10 is not behind 198.18.0.11 in 198.18.0.0/24"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, First: a4, Last: far4} }, "dhcp.last: "},
		{func(o *Options) { o.Addresses[0], o.DHCP.On = network("198.18.0.1/31"), true }, "dhcp.on: 198.18.0.1/31 leaves no address"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{{}: a4}} }, "dhcp.reserved[00:00:00:00:00:00]: no station"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestA: far4}} }, "dhcp.reserved[02:00:00:00:00:0a]: 192.0.2.1 is no guest's"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestA: gateway4}} }, "dhcp.reserved[02:00:00:00:00:0a]: "},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestA: a4, guestB: a4}} }, "dhcp.reserved[02:00:00:00:00:0b]: 198.18.0.10 is reserved for 02:00:00:00:00:0a too"},
		{func(o *Options) { o.DHCP = DHCPOptions{On: true, First: a4, Last: b4} }, ""},
	} {
		o := options()
		c.change(&o)
		err := o.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%v", err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%v, want one fault: %s...", err, c.want)
		}
		if _, nerr := New(o, time.Time{}); (nerr == nil) != (err == nil) {
			t.Errorf("New says %v, Validate %v", nerr, err)
		}
	}
	bad := Options{MAC: broadcast(), MTU: 1, Proxy: 9, RA: RAOptions{On: true}, DHCP: DHCPOptions{On: true}}
	if n := strings.Count(bad.Validate().Error(), "\n") + 1; n != 6 {
		t.Errorf("%d faults, want all 6:\n%v", n, bad.Validate())
	}
}

// TestDefaults fills in what the documentation of Options promises.
func TestDefaults(t *testing.T) {
	o := Options{Addresses: options().Addresses}.withDefaults()
	ra := RAOptions{MaxInterval: 10 * time.Minute, MinInterval: 200 * time.Second, RouterLifetime: 30 * time.Minute, PreferredLifetime: 45 * time.Minute, ValidLifetime: 90 * time.Minute}
	if o.MTU != 1500 || o.MaxNeighbors != 4096 || o.MaxPerStation != 256 || o.MaxPending != 256 || o.NeighborTTL != 2*time.Minute ||
		o.DHCP.LeaseTime != time.Hour || o.DHCP.MaxLeases != 4096 || o.DHCP.MaxPerStation != 8 {
		t.Errorf("%+v", o)
	}
	if o.RA.DNS = nil; o.RA.MaxInterval != ra.MaxInterval || o.RA.MinInterval != ra.MinInterval || o.RA.RouterLifetime != ra.RouterLifetime ||
		o.RA.PreferredLifetime != ra.PreferredLifetime || o.RA.ValidLifetime != ra.ValidLifetime {
		t.Errorf("%+v, want %+v", o.RA, ra)
	}
	if short := (RAOptions{MaxInterval: 4 * time.Second}).withDefaults(); short.MinInterval != short.MaxInterval {
		t.Errorf("%+v", short)
	}
	if o := (Options{MaxNeighbors: 10}).withDefaults(); o.MaxPerStation != 10 {
		t.Errorf("%d per station of 10", o.MaxPerStation)
	}
	// The MAC is stable, local, and another for another gateway.
	if o.MAC != (Options{Addresses: options().Addresses}).withDefaults().MAC || o.MAC[0] != 2 {
		t.Errorf("MAC %v", o.MAC)
	}
	if other := (Options{Addresses: []netip.Prefix{network("198.18.0.2/24")}}).withDefaults(); other.MAC == o.MAC {
		t.Errorf("two gateways have MAC %v", o.MAC)
	}
}

// TestTexts reads what it writes.
func TestTexts(t *testing.T) {
	for m := range ProxyMode(len(proxyNames)) {
		var got ProxyMode
		if err := got.UnmarshalText([]byte(m.String())); err != nil || got != m {
			t.Errorf("%v became %v, %v", m, got, err)
		}
	}
	var mode ProxyMode
	if err := mode.UnmarshalText([]byte("both")); err == nil || err.Error() != `"both" is not one of own, prefixes, off-link, all` {
		t.Error(err)
	}
	var mac MAC
	b, _ := guestA.MarshalText()
	if err := mac.UnmarshalText(b); err != nil || mac != guestA {
		t.Errorf("%s became %v, %v", b, mac, err)
	}
	for _, s := range []string{"", "02:00:00:00:00", "02:00:00:00:00:00:00:01", "x"} {
		if err := mac.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is a MAC", s)
		}
	}
	var h Header
	if h.Decode(make([]byte, 13)) {
		t.Error("a header of 13 bytes")
	}
	in := Header{guestA, guestB, TypeARP}
	raw := make([]byte, HdrLen)
	in.Encode(raw)
	if !h.Decode(raw) || h != in || !maps.Equal(map[MAC]bool{h.Dst: true}, map[MAC]bool{guestA: true}) {
		t.Errorf("%+v became %+v", in, h)
	}
}
