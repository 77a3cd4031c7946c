package lan

import (
	"net/netip"
	"slices"
	"time"
)

// claimHold is how long no other claim on an address is looked into after its
// holder has answered one: asking costs the holder an answer.
const claimHold = time.Second

// isOnLink reports whether guests have a.
func (l *LAN) isOnLink(a netip.Addr) bool {
	return unicast(a) && contains(l.onLink, a)
}

// isOwn reports whether a is the gateway's.
func (l *LAN) isOwn(a netip.Addr) bool { return slices.Contains(l.own, a) }

// claim takes the word of a frame that station s has the address k, and returns
// why it may not be believed. A new neighbor is made of it if create, or if the
// address was asked for. The rule about an address that changes its station is:
// the one who has it is asked, and keeps it if it answers within 3 s. Frames of
// the other are dropped meanwhile. So a guest that is alive cannot be robbed of
// its address, and a second machine takes over from a dead one without help.
func (l *LAN) claim(t *turn, k key, s station, create bool) (DropReason, bool) {
	if n := l.neighbors.find(k); n != nil {
		if holder := n.station(); holder != s {
			return l.dispute(t, k, holder, s)
		}
		l.neighbors.touch(n, t.now)
		l.defended(n)
		return 0, true
	}
	a := k.addr()
	if l.isOwn(a) || !l.isOnLink(a) {
		return DropSource, false
	}
	q := l.resolver.open[k]
	holder := l.holder(k, q)
	if holder != 0 && holder != s {
		return l.dispute(t, k, holder, s)
	}
	switch {
	case q != nil:
		l.settle(t, q, s)
	case create:
		l.learn(k, s, t.now)
	}
	return 0, true
}

// holder is who has an address that no neighbor has: who is asked already whether
// it still has it, or for whom it is leased. 0 is nobody.
func (l *LAN) holder(k key, q *asking) station {
	if q != nil && q.claimant != 0 {
		return q.holder
	}
	if l.dhcp != nil && k.is4() {
		return l.dhcp.pool.holder(k.addr())
	}
	return 0
}

// learn makes a neighbor.
func (l *LAN) learn(k key, s station, now time.Duration) {
	l.count(EventLearned, 1)
	l.count(EventEvicted, l.neighbors.insert(k, s, now))
}

// dispute asks the holder of k whether it still has it, now that s claims it,
// unless it is being asked or was just now.
func (l *LAN) dispute(t *turn, k key, holder, s station) (DropReason, bool) {
	n := l.neighbors.find(k)
	q := l.resolver.open[k]
	if q != nil && q.claimant != 0 || n != nil && t.now < n.settled || !l.resolver.mayDispute() {
		return DropSpoofed, false
	}
	if q == nil {
		q = l.resolver.begin(k)
	}
	if q == nil {
		return DropSpoofed, false
	}
	l.resolver.dispute(q, holder, s)
	if n != nil {
		n.trust(0) // its next frame is its answer
	}
	l.ask(t, q)
	return DropSpoofed, false
}

// defended closes the question about a neighbor that was just heard of.
func (l *LAN) defended(n *neighbor) {
	q := l.resolver.open[n.key]
	if q == nil {
		return
	}
	l.resolver.end(q) // nothing waits: the neighbor is known
	n.settled = n.seen + claimHold
	l.count(EventMoveRefused, 1)
}

// settle closes q: the address is s's, which is nobody, the holder or the claimant
// so far.
func (l *LAN) settle(t *turn, q *asking, s station) {
	for _, p := range l.resolver.end(q) {
		t.send(s.mac(), p)
	}
	if n := l.neighbors.find(q.key); n != nil {
		l.neighbors.remove(n)
	}
	l.learn(q.key, s, t.now)
	switch q.claimant {
	case 0:
	case s:
		l.count(EventMoved, 1)
	default:
		l.count(EventMoveRefused, 1)
	}
}
