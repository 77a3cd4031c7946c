package lan

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tungate/tungate/offload"
)

// HeadLen is how much of a frame Input must see to tell what it is: an Ethernet
// header, and IPv4's with all options and UDP's, or IPv6's with a few extension
// headers.
const HeadLen = 128

// announceTimes and announceInterval are ANNOUNCE_NUM and ANNOUNCE_INTERVAL of RFC
// 5227, section 1.1.
const (
	announceTimes    = 2
	announceInterval = 2 * time.Second
)

// Verdict says what became of a frame.
type Verdict uint8

// The verdicts.
const (
	Dropped    Verdict = iota // and counted
	Deliver                   // an IP packet for the stack: what follows the Ethernet header
	Consumed                  // a message to the LAN itself, which was served
	Incomplete                // such a message, given in part: give it whole
)

// Frame is a frame from a guest. Its memory stays the caller's.
type Frame struct {
	// Data begins with the Ethernet header. It is the whole frame, or at least
	// its first HeadLen bytes.
	Data []byte
	// Len is the whole frame's length; 0 is that of Data.
	Len int
	// Verified says that transport checksums need no look, since the device
	// vouches for them: a partial one (NEEDS_CSUM) was never on a wire.
	Verified bool
}

// LAN is the link below the IP stack: its neighbors, and the services on it that
// are no connections. All methods may be called by any goroutine.
type LAN struct {
	options   Options // defaults filled in
	mac       MAC
	station   station
	own       []netip.Addr
	onLink    []netip.Prefix
	linkLocal netip.Addr // valid iff IPv6 is served
	served    [2]bool    // IPv4, IPv6
	start     time.Time  // instants are measured from it

	drops  [NumDropReasons]atomic.Uint64
	events [NumEvents]atomic.Uint64

	neighbors table // find takes no lock

	mu         sync.Mutex // guards what follows, and neighbors' changes
	resolver   resolver
	dhcp       *dhcpServer // nil if off
	ra         advertiser
	announces  int           // left to make of our own addresses
	announceAt time.Duration // never if none is left
	defendedAt time.Duration
}

// New returns a LAN, or o.Validate's error. It keeps o's slices. Nothing happens
// before the first call of Tick, which is due at once.
func New(o Options, now time.Time) (*LAN, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := stationOf(o.MAC[:])
	l := &LAN{options: o, mac: o.MAC, station: s, start: now, announces: announceTimes, defendedAt: -defendInterval}
	l.onLink = slices.Clone(o.OnLink)
	for _, p := range o.Addresses {
		l.own = append(l.own, p.Addr())
		l.onLink = append(l.onLink, p.Masked())
		l.served[0] = l.served[0] || p.Addr().Is4()
		l.served[1] = l.served[1] || p.Addr().Is6()
	}
	l.setLinkLocal()
	l.neighbors.init(o.MaxNeighbors, o.MaxPerStation)
	l.resolver.init(o.MaxPending)
	l.ra.init(&o.RA)
	if o.DHCP.On {
		l.dhcp = newDHCPServer(l)
	}
	return l, nil
}

// setLinkLocal gives the gateway a link-local address made of its MAC (RFC 4291,
// appendix A), unless it has another.
func (l *LAN) setLinkLocal() {
	if !l.served[1] {
		return
	}
	l.onLink = append(l.onLink, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10))
	for _, a := range l.own {
		if a.Is6() && a.IsLinkLocalUnicast() {
			l.linkLocal = a
			return
		}
	}
	m := l.mac
	l.linkLocal = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
	l.own = append(l.own, l.linkLocal)
}

// MAC is the gateway's Ethernet address.
func (l *LAN) MAC() MAC { return l.mac }

// Input takes a frame from a guest. What is for the LAN itself is served and
// answered by frames to send, each of which is given away for good; they are whole
// and have their checksums. send is called before Input returns, with no lock held.
// now may be the time the frame's batch was read at.
func (l *LAN) Input(f Frame, now time.Time, send func(frame []byte)) Verdict {
	b := f.Data
	f.Len = max(f.Len, len(b))
	if len(b) < HdrLen {
		return l.dropped(DropTruncated)
	}
	src := stationOf(b[6:])
	if src&groupBit != 0 || src == 0 || src == l.station {
		return l.dropped(DropSourceMAC)
	}
	group := b[0]&1 != 0
	if !group && MAC(b[0:6]) != l.mac {
		return l.dropped(DropDestination)
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case TypeIPv4:
		return l.ipv4(f, src, group, turnArgs{now, send})
	case TypeIPv6:
		return l.ipv6(f, src, group, turnArgs{now, send})
	case TypeARP:
		if !l.served[0] {
			return l.dropped(DropFamily)
		}
		return l.serve(f, src, turnArgs{now, send}, l.arpInput)
	case typeVLAN, typeQinQ, typeVLAN2:
		return l.dropped(DropVLAN)
	}
	return l.dropped(DropEtherType)
}

// ipv4 finds out what an IPv4 packet is for.
func (l *LAN) ipv4(f Frame, src station, group bool, a turnArgs) Verdict {
	const srcAt, dstAt = HdrLen + 12, HdrLen + 16
	b := f.Data
	switch {
	case !l.served[0]:
		return l.dropped(DropFamily)
	case len(b) < dstAt+4:
		return l.dropped(DropTruncated)
	case b[HdrLen]>>4 != 4: // the stack would go by this, and see another source
		return l.dropped(DropVersion)
	}
	if b[HdrLen+9] == offload.ProtoUDP && l.dhcp != nil {
		dst := netip.AddrFrom4([4]byte(b[dstAt:]))
		switch port := dstPort(b); {
		case port == dhcpServerPort && (group && dst == allHosts() || !group && dst == l.dhcp.addr):
			return l.serve(f, src, a, l.dhcpInput)
		case port == dhcpClientPort && group:
			return l.dropped(DropRogueDHCP)
		}
	}
	if group {
		return l.dropped(DropMulticast)
	}
	return l.data(key4(b[srcAt:]), src, a)
}

// dstPort is the destination port of a UDP packet over IPv4, 0 if it is not there.
func dstPort(b []byte) uint16 {
	const fragmentOffset = 0x1fff
	at := HdrLen + int(b[HdrLen]&0x0f)*4
	if len(b) < at+4 || binary.BigEndian.Uint16(b[HdrLen+6:])&fragmentOffset != 0 {
		return 0
	}
	return binary.BigEndian.Uint16(b[at+2:])
}

// ipv6 finds out what an IPv6 packet is for.
func (l *LAN) ipv6(f Frame, src station, group bool, a turnArgs) Verdict {
	const srcAt, dstAt = HdrLen + 8, HdrLen + 24
	b := f.Data
	switch {
	case !l.served[1]:
		return l.dropped(DropFamily)
	case len(b) < HdrLen+ipv6HdrLen:
		return l.dropped(DropTruncated)
	case b[HdrLen]>>4 != 6:
		return l.dropped(DropVersion)
	case group && (b[dstAt] != 0xff || MAC(b[0:6]) != groupMAC(netip.AddrFrom16([16]byte(b[dstAt:])))):
		return l.dropped(DropDestination)
	case b[srcAt] == 0xff:
		return l.dropped(DropSource)
	}
	switch next := b[HdrLen+6]; {
	case next == offload.ProtoICMPv6:
		if len(b) > HdrLen+ipv6HdrLen && isNDP(b[HdrLen+ipv6HdrLen]) {
			return l.serve(f, src, a, l.ndpInput)
		}
	case next == offload.ProtoTCP, next == offload.ProtoUDP:
	case hidesNDP(b[HdrLen:], f.Len-HdrLen):
		return l.dropped(DropNDP)
	}
	if group {
		return l.dropped(DropMulticast)
	}
	return l.data(key6(b[srcAt:]), src, a)
}

// hidesNDP reports whether a packet has a message of neighbor discovery behind
// extension headers, where no host puts one and the stack would find it.
func hidesNDP(ip []byte, total int) bool {
	var p offload.Packet
	if offload.Parse(&p, ip, total) != offload.OK || p.Fragment || p.Proto != offload.ProtoICMPv6 {
		return false
	}
	return isNDP(ip[p.L3Len])
}

// data lets a packet pass to the stack if its source address is the station's, by
// all that is known.
func (l *LAN) data(k key, src station, a turnArgs) Verdict {
	n := l.neighbors.find(k)
	if n != nil && n.passes(src, a.now.Sub(l.start)) {
		return Deliver
	}
	t := l.begin(a.now)
	l.mu.Lock()
	reason, ok := l.claim(&t, k, src, true)
	l.mu.Unlock()
	t.finish(a.send)
	if !ok {
		return l.dropped(reason)
	}
	return Deliver
}

// serve gives a whole frame to one of the services.
func (l *LAN) serve(f Frame, src station, a turnArgs, service func(*turn, Frame, station) (DropReason, bool)) Verdict {
	if len(f.Data) < f.Len {
		return Incomplete
	}
	t := l.begin(a.now)
	l.mu.Lock()
	reason, ok := service(&t, f, src)
	l.mu.Unlock()
	t.finish(a.send)
	if !ok {
		return l.dropped(reason)
	}
	return Consumed
}

// Tick does what is due at now. send is as Input's.
func (l *LAN) Tick(now time.Time, send func(frame []byte)) {
	t := l.begin(now)
	l.mu.Lock()
	l.introduce(&t)
	l.advertise(&t)
	l.askAgain(&t)
	for {
		n, ok := l.neighbors.expired(t.now - l.options.NeighborTTL)
		if !ok {
			break
		}
		l.neighbors.remove(n)
		l.count(EventExpired, 1)
	}
	if l.dhcp != nil {
		l.dhcp.pool.expire(t.now)
	}
	l.mu.Unlock()
	t.finish(send)
}

// LinkUp is to be called when the link comes up after New or after it was down: the
// first Ticks after it introduce the gateway to the guests once more. Next is
// earlier afterwards.
func (l *LAN) LinkUp(now time.Time) {
	t := l.begin(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announces, l.announceAt = announceTimes, t.now
	l.ra.begin(t.now)
}

// Forget forgets who has which address, but for leases: it is to be called when the
// link is another one than before, whose stations may have other MACs.
func (l *LAN) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n, ok := l.neighbors.expired(never)
		if !ok {
			return
		}
		l.neighbors.remove(n)
		l.count(EventExpired, 1)
	}
}

// introduce announces the gateway's addresses, so that guests that knew another
// station by them learn of it.
func (l *LAN) introduce(t *turn) {
	if l.announces == 0 || t.now < l.announceAt {
		return
	}
	l.announces--
	l.announceAt = t.now + announceInterval
	for _, a := range l.own {
		l.announce(t, a)
	}
}

// Next returns when Tick is due; it may be past. After Input, Resolve and Tick it
// may be earlier than before. Zero is never.
func (l *LAN) Next() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.ra.next
	if l.announces > 0 {
		next = min(next, l.announceAt)
	}
	if q, ok := l.resolver.due.oldest(); ok {
		next = min(next, q.due)
	}
	if seen, ok := l.neighbors.quietest(); ok {
		next = min(next, seen+l.options.NeighborTTL)
	}
	if l.dhcp != nil {
		next = min(next, l.dhcp.pool.next())
	}
	if next == never {
		return time.Time{}
	}
	return l.start.Add(next)
}

// Farewell tells guests that the gateway is no router of theirs from now on (RFC
// 4861, section 6.2.5), and drops what still waits.
func (l *LAN) Farewell(now time.Time, send func(frame []byte)) {
	t := l.begin(now)
	l.mu.Lock()
	if l.ra.on {
		l.ra.on, l.ra.next = false, never
		t.reply(l.routerAdvertisement(0))
		l.count(EventRA, 1)
	}
	for q, ok := l.resolver.due.oldest(); ok; q, ok = l.resolver.due.oldest() {
		for _, p := range l.resolver.end(q) {
			l.drop(DropUnresolved)
			t.drop(p)
		}
	}
	l.mu.Unlock()
	t.finish(send)
}

// Stats returns a snapshot.
func (l *LAN) Stats() Stats {
	var s Stats
	for i := range l.drops {
		s.Drops[i] = l.drops[i].Load()
	}
	for i := range l.events {
		s.Events[i] = l.events[i].Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Neighbors, s.Stations = l.neighbors.len(), len(l.neighbors.stations)
	s.Resolving, s.Pending = len(l.resolver.open), l.resolver.packets
	if l.dhcp != nil {
		s.Leases, s.Offers = l.dhcp.pool.bound.len, l.dhcp.pool.offered.len
	}
	return s
}

func (l *LAN) drop(r DropReason) { l.drops[r].Add(1) }

func (l *LAN) dropped(r DropReason) Verdict {
	l.drop(r)
	return Dropped
}

func (l *LAN) count(e Event, n int) { l.events[e].Add(uint64(n)) }
