package lan

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// How long an address is kept for whom.
const (
	// offerTime is how long an offer stands. A client that wants it says so
	// within 4 s, or repeats itself for up to a minute (RFC 2131, section 4.1).
	offerTime = time.Minute
	// declineTime is how long an address is left alone that a client found
	// taken; dnsmasq's DECLINE_BACKOFF is the same.
	declineTime = 10 * time.Minute
	// maxProbes bounds the search for a free address from where a station's
	// begins. In a pool with one free in a hundred, one in 10^17 searches fails.
	maxProbes = 4096
)

// client is who leases: a client identifier (option 61; "" is none) at a station.
// RFC 2131 knows clients by the identifier alone. Then a guest gets another's
// address by sending its identifier, and so do two copies of one machine.
type client struct {
	station station
	id      string
}

// leaseState is which of the pool's lists a lease is in.
type leaseState uint8

const (
	leaseOffered  leaseState = iota // until the client takes it
	leaseBound                      // in force
	leaseIdle                       // released or run out; the client's if it returns in time
	leaseDeclined                   // nobody's, since somebody uses it
)

// lease is what is known of one address.
type lease struct {
	addr   uint32
	client client
	state  leaseState
	until  time.Duration
	place  node[*lease]
}

// pool is the addresses that may be leased and who has them. A lease of each state
// lasts equally long, so each list is in the order of its ends.
type pool struct {
	first, last uint32
	network     netip.Prefix
	skip        map[uint32]bool // the gateway's own, and the network's two
	reserved    map[station]uint32
	reservedFor map[uint32]station
	leaseTime   time.Duration
	max, each   int
	inUse       func(a netip.Addr, by station) bool // does another station than by have it?

	byAddr   map[uint32]*lease
	byClient map[client]*lease
	held     map[station]int // leases of each station that are not idle
	offered  list[*lease]
	bound    list[*lease]
	idle     list[*lease]
	declined list[*lease]
}

func (p *pool) init(o *DHCPOptions, server netip.Prefix, own []netip.Addr, inUse func(netip.Addr, station) bool) {
	p.network = server.Masked()
	p.first, p.last = num(p.network.Addr()), num(lastOf(server))
	p.skip = map[uint32]bool{p.first: true, p.last: true}
	if o.First.IsValid() {
		p.first, p.last = num(o.First), num(o.Last)
	}
	for _, a := range own {
		if a.Is4() {
			p.skip[num(a)] = true
		}
	}
	p.reserved, p.reservedFor = map[station]uint32{}, map[uint32]station{}
	for mac, a := range o.Reserved {
		s := stationOf(mac[:])
		p.reserved[s], p.reservedFor[num(a)] = num(a), s
	}
	p.leaseTime, p.max, p.each, p.inUse = o.LeaseTime, o.MaxLeases, o.MaxPerStation, inUse
	p.byAddr, p.byClient, p.held = map[uint32]*lease{}, map[client]*lease{}, map[station]int{}
	for _, l := range []*list[*lease]{&p.offered, &p.bound, &p.idle, &p.declined} {
		l.init()
	}
}

func num(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addrOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// listOf is the list of a state, and how long a lease stays in it.
func (p *pool) listOf(s leaseState) (*list[*lease], time.Duration) {
	switch s {
	case leaseOffered:
		return &p.offered, offerTime
	case leaseBound:
		return &p.bound, p.leaseTime
	case leaseDeclined:
		return &p.declined, declineTime
	case leaseIdle:
	}
	return &p.idle, never
}

// enter puts l, which is in no list, into that of a state.
func (p *pool) enter(l *lease, s leaseState, now time.Duration) {
	in, stay := p.listOf(s)
	l.state = s
	l.until = never
	if stay != never {
		l.until = now + stay
	}
	in.push(&l.place)
	if s != leaseIdle {
		p.held[l.client.station]++
	}
}

func (p *pool) leave(l *lease) {
	in, _ := p.listOf(l.state)
	in.remove(&l.place)
	if s := l.client.station; l.state != leaseIdle {
		if p.held[s]--; p.held[s] == 0 {
			delete(p.held, s)
		}
	}
}

func (p *pool) change(l *lease, s leaseState, now time.Duration) {
	p.leave(l)
	p.enter(l, s, now)
}

// add makes a lease of an address that has none, for a client that has none.
func (p *pool) add(a uint32, c client, s leaseState, now time.Duration) {
	l := &lease{addr: a, client: c}
	l.place.of = l
	p.byAddr[a], p.byClient[c] = l, l
	p.enter(l, s, now)
}

// forget ends what is known of l's address.
func (p *pool) forget(l *lease) {
	p.leave(l)
	delete(p.byAddr, l.addr)
	if p.byClient[l.client] == l {
		delete(p.byClient, l.client)
	}
}

// expire ends what has run out. A lease that was in force stays the client's until
// the address is needed (RFC 2131, section 4.3.1).
func (p *pool) expire(now time.Duration) {
	for l, ok := p.bound.oldest(); ok && l.until <= now; l, ok = p.bound.oldest() {
		p.change(l, leaseIdle, now)
	}
	for _, in := range []*list[*lease]{&p.offered, &p.declined} {
		for l, ok := in.oldest(); ok && l.until <= now; l, ok = in.oldest() {
			p.forget(l)
		}
	}
}

// next is when expire has something to do.
func (p *pool) next() time.Duration {
	next := never
	for _, in := range []*list[*lease]{&p.offered, &p.bound, &p.declined} {
		if l, ok := in.oldest(); ok {
			next = min(next, l.until)
		}
	}
	return next
}

// holder is the station that a belongs to by lease or reservation, 0 if none.
func (p *pool) holder(a netip.Addr) station {
	n := num(a)
	if s := p.reservedFor[n]; s != 0 {
		return s
	}
	if l := p.byAddr[n]; l != nil && l.state == leaseBound {
		return l.client.station
	}
	return 0
}

// has reports whether a is the pool's or reserved: then nobody else may give it to
// a guest.
func (p *pool) has(a uint32) bool {
	return a >= p.first && a <= p.last && !p.skip[a] || p.reservedFor[a] != 0
}

// free reports whether the pool may give a to s: it has no lease, not even one that
// ran out, and no other guest uses it.
func (p *pool) free(a uint32, s station) bool {
	if p.byAddr[a] != nil || !p.has(a) {
		return false
	}
	if owner := p.reservedFor[a]; owner != 0 {
		return owner == s
	}
	return !p.inUse(addrOf(a), s)
}

// offer chooses an address for c, in the order of RFC 2131, section 4.3.1: what is
// reserved for it, what it has, what it had, what it wishes, what is free, and at
// last what has been idle for longest or was offered to one who did not come back.
func (p *pool) offer(c client, wish uint32, now time.Duration) (a uint32, ok bool) {
	p.expire(now)
	l := p.byClient[c]
	if r := p.reserved[c.station]; r != 0 {
		return p.offerReserved(c, r, now)
	}
	if l != nil && (l.state == leaseIdle && p.held[c.station] >= p.each || p.inUse(addrOf(l.addr), c.station)) {
		p.forget(l)
		l = nil
	}
	switch {
	case l != nil && l.state == leaseBound:
		return l.addr, true
	case l != nil:
		p.change(l, leaseOffered, now)
		return l.addr, true
	case p.held[c.station] >= p.each:
		return 0, false
	}
	if !p.free(wish, c.station) {
		if wish, ok = p.search(c); !ok {
			wish, ok = p.reclaim(c.station)
			if !ok {
				return 0, false
			}
		}
	}
	if !p.room() {
		return 0, false
	}
	p.add(wish, c, leaseOffered, now)
	return wish, true
}

// offerReserved offers a station its reserved address, whichever of its clients
// had it before.
func (p *pool) offerReserved(c client, r uint32, now time.Duration) (uint32, bool) {
	l := p.byAddr[r]
	if l != nil && l.client == c && l.state == leaseBound {
		return r, true
	}
	return r, p.replace(r, c, leaseOffered, now)
}

// replace gives a to c, whatever either had, and reports whether there was room.
func (p *pool) replace(a uint32, c client, s leaseState, now time.Duration) bool {
	for _, l := range []*lease{p.byAddr[a], p.byClient[c]} {
		if l != nil && (p.byAddr[l.addr] == l) {
			p.forget(l)
		}
	}
	if !p.room() {
		return false
	}
	p.add(a, c, s, now)
	return true
}

// search looks for a free address from one that the client's station and
// identifier lead to, so that a guest finds its address again after a restart of
// the gateway, which remembers nothing.
func (p *pool) search(c client) (uint32, bool) {
	size := uint64(p.last-p.first) + 1
	if uint64(len(p.byAddr)) >= size+uint64(len(p.reservedFor)) {
		return 0, false
	}
	at := c.hash() % size
	for range min(size, maxProbes) {
		if a := p.first + uint32(at); p.free(a, c.station) { //nolint:gosec // below size
			return a, true
		}
		at = (at + 1) % size
	}
	return 0, false
}

// hash is FNV-1a over the client.
func (c client) hash() uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := (uint64(offset) ^ uint64(c.station)) * prime
	for i := range len(c.id) {
		h = (h ^ uint64(c.id[i])) * prime
	}
	return h ^ h>>32
}

// reclaim takes the address that has been idle for longest, or else that of the
// oldest offer, for s.
func (p *pool) reclaim(s station) (uint32, bool) {
	for _, in := range []*list[*lease]{&p.idle, &p.offered} {
		for n := in.root.next; n != &in.root; n = n.next {
			if l := n.of; p.reservedFor[l.addr] == 0 && !p.inUse(addrOf(l.addr), s) {
				p.forget(l)
				return l.addr, true
			}
		}
	}
	return 0, false
}

// room makes sure that one more lease may be remembered.
func (p *pool) room() bool {
	if len(p.byAddr) < p.max {
		return true
	}
	for _, in := range []*list[*lease]{&p.idle, &p.offered} {
		if l, ok := in.oldest(); ok {
			p.forget(l)
			return true
		}
	}
	return false
}

// grant is the answer to a request for an address.
type grant uint8

const (
	granted grant = iota
	refused       // by a NAK: the address is another's, or of another network
	unknown       // in silence: another server may know (RFC 2131, section 4.3.2)
)

// take binds a to c. An address of the pool that is free is given to who says it
// was his: the gateway may have forgotten, and no other server may give it away.
// selecting says that the client answers an offer of ours.
func (p *pool) take(c client, a uint32, selecting bool, now time.Duration) grant {
	p.expire(now)
	if r := p.reserved[c.station]; r != 0 && a != r {
		return refused
	}
	if l := p.byAddr[a]; l != nil && l.client == c && (l.state == leaseOffered || l.state == leaseBound) {
		p.change(l, leaseBound, now)
		return granted
	}
	if p.mayHave(c, a) && p.replace(a, c, leaseBound, now) {
		return granted
	}
	if selecting || p.has(a) || p.skip[a] || !p.network.Contains(addrOf(a)) {
		return refused
	}
	return unknown
}

// mayHave reports whether a may become c's, which it is not: it is reserved for it,
// free, or was its before, and its station has not all that one station gets.
func (p *pool) mayHave(c client, a uint32) bool {
	if p.reserved[c.station] == a {
		return true
	}
	if has := p.byClient[c]; p.held[c.station] >= p.each && (has == nil || has.state == leaseIdle) {
		return false
	}
	l := p.byAddr[a]
	return p.free(a, c.station) || l != nil && l.client == c && l.state == leaseIdle
}

// release ends c's lease of a, and reports whether it had it.
func (p *pool) release(c client, a uint32, now time.Duration) bool {
	l := p.byClient[c]
	if l == nil || l.addr != a || l.state != leaseBound {
		return false
	}
	p.change(l, leaseIdle, now)
	return true
}

// decline takes a out of use, which c was given and found taken, and reports
// whether it was.
func (p *pool) decline(c client, a uint32, now time.Duration) bool {
	l := p.byClient[c]
	if l == nil || l.addr != a || l.state == leaseIdle {
		return false
	}
	delete(p.byClient, c)
	p.change(l, leaseDeclined, now)
	return true
}

// withdraw ends an offer that c did not take.
func (p *pool) withdraw(c client) {
	if l := p.byClient[c]; l != nil && l.state == leaseOffered {
		p.forget(l)
	}
}
