package lan

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"
)

// ProxyMode says for which addresses, beside the gateway's own, ARP requests and
// neighbor solicitations are answered: those a guest believes to be on its link
// though the way to them is through the gateway. An address that a guest is known
// to have is never answered for, nor is anybody who probes whether one is free.
type ProxyMode uint8

// The modes.
const (
	ProxyOwn      ProxyMode = iota // none
	ProxyPrefixes                  // those in Options.ProxyPrefixes
	ProxyOffLink                   // those in no network of Options.Addresses and OnLink
	// ProxyAll is all but those of known guests. It takes the place of a guest
	// that has not been heard of yet, so it is for links whose guests have
	// nothing to say to each other.
	ProxyAll
)

var proxyNames = [...]string{ProxyOwn: "own", ProxyPrefixes: "prefixes", ProxyOffLink: "off-link", ProxyAll: "all"}

// String returns the word the config uses.
func (m ProxyMode) String() string {
	if int(m) < len(proxyNames) {
		return proxyNames[m]
	}
	return "unknown"
}

// UnmarshalText accepts the words of String.
func (m *ProxyMode) UnmarshalText(b []byte) error {
	for i, name := range proxyNames {
		if string(b) == name {
			*m = ProxyMode(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not one of own, prefixes, off-link, all", b)
}

// Options configures a LAN.
type Options struct {
	// MAC is the gateway's address on the link. Zero is a locally administered
	// one made of Addresses: the same at every start, so that guests need not
	// learn it again, and another for another gateway on the same link.
	MAC MAC

	// Addresses are the gateway's own, each with the network that is on the
	// link; one at least. Guests have addresses in these networks. A family is
	// served iff an address of it is here. An address in fe80::/10 replaces the
	// link-local one that is made of MAC otherwise.
	Addresses []netip.Prefix
	// OnLink are further networks whose addresses are guests', or behind one
	// that routes.
	OnLink []netip.Prefix

	// MTU is the largest IP packet on the link, as told to guests; 0 is 1500.
	MTU int

	// Proxy chooses the addresses answered for beside the gateway's own.
	Proxy ProxyMode
	// ProxyPrefixes are the networks of mode ProxyPrefixes.
	ProxyPrefixes []netip.Prefix

	// MaxNeighbors bounds the addresses whose station is remembered; past it
	// the one not heard of for longest goes. 0 is 4096.
	MaxNeighbors int
	// MaxPerStation bounds those of one MAC; past it its own oldest goes. 0 is
	// 256, or MaxNeighbors if that is less.
	MaxPerStation int
	// NeighborTTL is the silence after which an address is forgotten and, when
	// there is something to send, asked for again. 0 is 2 minutes.
	NeighborTTL time.Duration
	// MaxPending bounds the packets that wait for a station to answer, and the
	// addresses asked for at once. 0 is 256. Any one address has 4 at most.
	MaxPending int

	RA   RAOptions
	DHCP DHCPOptions
}

// RAOptions configures router advertisements (RFC 4861, section 6.2.1), by which
// IPv6 guests find their router, addresses and DNS servers.
type RAOptions struct {
	// On sends them. It needs an IPv6 address in Options.Addresses; each of its
	// networks is announced, those of 64 bits for guests to take addresses from.
	On bool
	// MaxInterval and MinInterval are the bounds of the time between two that
	// nobody asked for. 0 is 10 minutes, and a third of MaxInterval.
	MaxInterval, MinInterval time.Duration
	// RouterLifetime is how long a guest keeps the default route without
	// hearing another; 0 is three times MaxInterval, negative is no default
	// route.
	RouterLifetime time.Duration
	// PreferredLifetime and ValidLifetime are how long addresses made from an
	// announced network are used for new connections, and at all. 0 is 45
	// minutes or three times MaxInterval, whichever is more, and twice the
	// preferred (RFC 9096).
	PreferredLifetime, ValidLifetime time.Duration
	// DNS are the servers announced (RFC 8106).
	DNS []netip.Addr
}

// DHCPOptions configures the DHCPv4 server (RFC 2131).
type DHCPOptions struct {
	// On starts it. It needs an IPv4 address in Options.Addresses.
	On bool
	// First and Last bound the pool, both within one network of
	// Options.Addresses. Zero is that whole network, of the first IPv4 address.
	// What is the gateway's, reserved or in use by a guest is left out.
	First, Last netip.Addr
	// LeaseTime is how long an address is a guest's unless renewed; 0 is 1 hour.
	LeaseTime time.Duration
	// DNS are the servers told to guests.
	DNS []netip.Addr
	// Routes are told to guests that ask (option 121), beside a default route
	// by the gateway.
	Routes []Route
	// Reserved are addresses that one station alone gets, always. They may lie
	// outside the pool but not outside its network.
	Reserved map[MAC]netip.Addr
	// MaxLeases bounds the leases remembered; 0 is 4096.
	MaxLeases int
	// MaxPerStation bounds those of one MAC, which tells several clients behind
	// it apart by their client identifiers; 0 is 8.
	MaxPerStation int
}

// Route is a route for guests.
type Route struct {
	Prefix netip.Prefix
	Via    netip.Addr // zero is the gateway
}

// Defaults, other than those of an RFC that the code names.
const (
	defaultMTU           = 1500 // Ethernet's
	defaultMaxNeighbors  = 4096
	defaultMaxPerStation = 256
	defaultMaxPending    = 256
	defaultLeaseTime     = time.Hour
	defaultMaxLeases     = 4096
	defaultLeasesEach    = 8 // firmware, loader, system and a few virtual devices

	// defaultNeighborTTL is how long packets may go to a station that left in
	// silence; a guest that lives speaks more often than that.
	defaultNeighborTTL = 2 * time.Minute
	// defaultMaxInterval is MaxRtrAdvInterval of RFC 4861, section 6.2.1.
	defaultMaxInterval = 600 * time.Second
	// leastPreferred is ND_PREFERRED_LIMIT of RFC 9096.
	leastPreferred = 45 * time.Minute
)

// withDefaults returns o with every zero value replaced.
func (o Options) withDefaults() Options {
	if o.MAC == (MAC{}) {
		o.MAC = deriveMAC(o.Addresses)
	}
	def(&o.MTU, defaultMTU)
	def(&o.MaxNeighbors, defaultMaxNeighbors)
	def(&o.MaxPerStation, min(defaultMaxPerStation, o.MaxNeighbors))
	def(&o.NeighborTTL, defaultNeighborTTL)
	def(&o.MaxPending, defaultMaxPending)
	o.RA = o.RA.withDefaults()
	def(&o.DHCP.LeaseTime, defaultLeaseTime)
	def(&o.DHCP.MaxLeases, defaultMaxLeases)
	def(&o.DHCP.MaxPerStation, defaultLeasesEach)
	return o
}

func (o RAOptions) withDefaults() RAOptions {
	def(&o.MaxInterval, defaultMaxInterval)
	// RFC 4861, section 6.2.1: a third, but not of an interval below 9 s.
	if o.MaxInterval >= 9*time.Second {
		def(&o.MinInterval, o.MaxInterval/3)
	}
	def(&o.MinInterval, o.MaxInterval)
	def(&o.RouterLifetime, 3*o.MaxInterval)
	def(&o.PreferredLifetime, max(leastPreferred, 3*o.MaxInterval))
	def(&o.ValidLifetime, 2*o.PreferredLifetime)
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// deriveMAC hashes the gateway's addresses into a locally administered unicast
// address.
func deriveMAC(addresses []netip.Prefix) MAC {
	h := fnv.New64a()
	for _, a := range addresses {
		h.Write([]byte(a.String()))
	}
	m := MAC(h.Sum(nil)[:6])
	m[0] = 0x02
	return m
}
