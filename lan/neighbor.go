package lan

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// key is an IP address as the table of neighbors knows it: the 128 bits of IPv6,
// or 64 ones and IPv4's 32. No unicast IPv6 address begins with those.
type key struct{ hi, lo uint64 }

const ipv4Hi = ^uint64(0)

func key4(b []byte) key { return key{ipv4Hi, uint64(binary.BigEndian.Uint32(b))} }

func key6(b []byte) key {
	return key{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key4(b[:])
	}
	b := a.As16()
	return key6(b[:])
}

func (k key) is4() bool { return k.hi == ipv4Hi }

func (k key) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	if k.is4() {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// trustTime is how long frames of a neighbor pass after one that was looked at
// under the lock. It is what lastSeen is exact to.
const trustTime = time.Second

// neighbor is an address and the station that has it.
type neighbor struct {
	key  key
	next atomic.Pointer[neighbor] // in its bucket

	at      atomic.Uint64 // station
	trusted atomic.Int64  // frames of at pass without the lock until then

	since   time.Duration // when it was first heard of
	seen    time.Duration // when a frame was last looked at
	settled time.Duration // before that, no other claim is looked into
	proven  bool          // which of the table's lists it is in
	place   node[*neighbor]
}

func (n *neighbor) station() station { return station(n.at.Load()) }

// trust is for the frames to come; none makes the next one be looked at.
func (n *neighbor) trust(until time.Duration) { n.trusted.Store(int64(until)) }

// passes reports whether a frame of s is plainly the neighbor's.
func (n *neighbor) passes(s station, now time.Duration) bool {
	return n.station() == s && int64(now) < n.trusted.Load()
}

// table holds the neighbors. find may be called by anyone at any time and takes no
// lock: buckets are chains of atomic pointers, and a neighbor that was taken out
// still leads a reader to the rest of its chain. All else is under the LAN's lock.
//
// Victims are found in two lists by age: an address heard of in one second only is
// fresh, one heard of again is proven, and fresh ones go first. So a flood of
// invented addresses displaces itself.
type table struct {
	buckets []atomic.Pointer[neighbor]
	mask    uint64
	seed    key

	max, perStation int
	fresh, proven   list[*neighbor] // by seen
	stations        map[station][]*neighbor
}

func (t *table) init(size, perStation int) {
	n := 1 << bits.Len(uint(size-1))
	t.buckets = make([]atomic.Pointer[neighbor], n)
	t.mask = uint64(n - 1)
	t.seed = key{rand.Uint64(), rand.Uint64()}
	t.max, t.perStation = size, perStation
	t.fresh.init()
	t.proven.init()
	t.stations = map[station][]*neighbor{}
}

func (t *table) len() int { return t.fresh.len + t.proven.len }

// bucket hashes k with a secret, so that nobody can choose addresses that share a
// chain.
func (t *table) bucket(k key) *atomic.Pointer[neighbor] {
	hi, lo := bits.Mul64(k.hi^t.seed.hi, k.lo^t.seed.lo)
	return &t.buckets[(hi^lo)&t.mask]
}

// find returns the neighbor with address k, or nil.
func (t *table) find(k key) *neighbor {
	n := t.bucket(k).Load()
	for n != nil && n.key != k {
		n = n.next.Load()
	}
	return n
}

// insert adds a neighbor that is not there, and returns how many went for it.
func (t *table) insert(k key, s station, now time.Duration) (evicted int) {
	if own := t.stations[s]; len(own) >= t.perStation {
		t.remove(slices.MinFunc(own, func(a, b *neighbor) int { return cmp.Compare(a.seen, b.seen) }))
		evicted++
	}
	if t.len() >= t.max {
		t.remove(t.victim())
		evicted++
	}
	n := &neighbor{key: k, since: now, seen: now}
	n.at.Store(uint64(s))
	n.trust(now + trustTime)
	n.place.of = n
	t.fresh.push(&n.place)
	t.stations[s] = append(t.stations[s], n)
	head := t.bucket(k)
	n.next.Store(head.Load())
	head.Store(n)
	return evicted
}

// victim is who goes when the table is full, which must not be empty.
func (t *table) victim() *neighbor {
	if n, ok := t.fresh.oldest(); ok {
		return n
	}
	n, _ := t.proven.oldest()
	return n
}

func (t *table) remove(n *neighbor) {
	at := t.bucket(n.key)
	for at.Load() != n {
		at = &at.Load().next
	}
	at.Store(n.next.Load())
	t.leave(n)
	t.listOf(n).remove(&n.place)
}

// leave takes n from its station.
func (t *table) leave(n *neighbor) {
	s := n.station()
	own := t.stations[s]
	own = slices.Delete(own, slices.Index(own, n), slices.Index(own, n)+1)
	if len(own) == 0 {
		delete(t.stations, s)
		return
	}
	t.stations[s] = own
}

func (t *table) listOf(n *neighbor) *list[*neighbor] {
	if n.proven {
		return &t.proven
	}
	return &t.fresh
}

// touch notes that n was heard of.
func (t *table) touch(n *neighbor, now time.Duration) {
	t.listOf(n).remove(&n.place)
	n.proven = now-n.since >= trustTime
	n.seen = now
	t.listOf(n).push(&n.place)
	n.trust(now + trustTime)
}

// expired returns a neighbor that was last heard of before t, if there is one.
func (t *table) expired(before time.Duration) (*neighbor, bool) {
	for _, l := range []*list[*neighbor]{&t.fresh, &t.proven} {
		if n, ok := l.oldest(); ok && n.seen <= before {
			return n, true
		}
	}
	return nil, false
}

// quietest is when the neighbor that was silent for longest was heard of.
func (t *table) quietest() (seen time.Duration, ok bool) {
	a, fresh := t.fresh.oldest()
	b, proven := t.proven.oldest()
	switch {
	case fresh && proven:
		return min(a.seen, b.seen), true
	case fresh:
		return a.seen, true
	case proven:
		return b.seen, true
	}
	return 0, false
}
