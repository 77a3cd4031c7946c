package lan

import (
	"net/netip"
	"time"
)

// Asking for an address.
const (
	// askInterval and askTimes are RETRANS_TIMER and MAX_MULTICAST_SOLICIT of
	// RFC 4861, section 10; Linux asks for IPv4 addresses the same way
	// (retrans_time_ms, mcast_solicit).
	askInterval = time.Second
	askTimes    = 3
	// perAddress is how many packets wait for one address: the first of a
	// connection and its repetitions. At least one is asked for by RFC 4861,
	// section 7.2.2, and RFC 1122, section 2.3.2.2.
	perAddress = 4
)

// Pending is a packet that waits for its next hop's station. One of the two is
// called, once, on any goroutine that calls a method of the LAN, which then holds
// no lock of the LAN.
type Pending interface {
	// Send is called with the station's address.
	Send(to MAC)
	// Drop is called when none is found, or when there are too many packets
	// like this one. It is counted already.
	Drop()
}

// asking is an address under question: where it is, or whether the station that
// has it is still there, now that another claims it.
type asking struct {
	key      key
	holder   station // who has it; valid iff claimant is not 0
	claimant station // who gets it if the holder is silent; 0 if nobody claims it
	asked    int
	due      time.Duration // when to ask again, or to give up
	queue    []Pending
	place    node[*asking]
}

// resolver holds the questions, by address and by age: all have the same
// interval, so the one asked longest ago is due first.
type resolver struct {
	max     int // of questions, and of packets
	open    map[key]*asking
	due     list[*asking]
	packets int
	claims  int // questions with a claimant
}

func (r *resolver) init(size int) {
	r.max = size
	r.open = map[key]*asking{}
	r.due.init()
}

// begin opens a question about k, and returns nil if there are too many.
func (r *resolver) begin(k key) *asking {
	if len(r.open) >= r.max {
		return nil
	}
	q := &asking{key: k}
	q.place.of = q
	r.open[k] = q
	r.due.push(&q.place)
	return q
}

// mayDispute keeps half of the questions for packets that want to go out: a guest
// can make disputes of nothing.
func (r *resolver) mayDispute() bool { return r.claims < max(1, r.max/2) }

// dispute makes q a question to the holder.
func (r *resolver) dispute(q *asking, holder, claimant station) {
	q.holder, q.claimant, q.asked = holder, claimant, 0
	r.claims++
}

// end closes q. Its packets are the caller's.
func (r *resolver) end(q *asking) []Pending {
	if q.claimant != 0 {
		r.claims--
	}
	delete(r.open, q.key)
	r.due.remove(&q.place)
	r.packets -= len(q.queue)
	return q.queue
}

// wait lets p wait for q, and returns what must go for that: the oldest of q if
// it has its share, p itself if all have theirs.
func (r *resolver) wait(q *asking, p Pending) (drop Pending) {
	switch {
	case len(q.queue) >= perAddress:
		drop = q.queue[0]
		q.queue = append(q.queue[:0], q.queue[1:]...)
	case r.packets >= r.max:
		return p
	default:
		r.packets++
	}
	q.queue = append(q.queue, p)
	return drop
}

// Lookup returns the address of the station that dst is at, as far as it is
// known; Resolve finds it out. For a multicast address and IPv4's broadcast it is
// their own (RFC 1112, section 6.4; RFC 2464, section 7). It takes no lock and may
// be called by any goroutine.
func (l *LAN) Lookup(dst netip.Addr) (MAC, bool) {
	if dst.IsMulticast() {
		return groupMAC(dst), true
	}
	if n := l.neighbors.find(keyOf(dst)); n != nil {
		return n.station().mac(), true
	}
	return broadcast(), dst == allHosts()
}

// allHosts is IPv4's broadcast address.
func allHosts() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// groupMAC maps a multicast address to its Ethernet address.
func groupMAC(dst netip.Addr) MAC {
	if dst.Is4() {
		b := dst.As4()
		return MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := dst.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// Resolve sends p to the station that dst is at as soon as that is known, asking
// for it if it is not: three times, a second apart. It may be called by any
// goroutine; afterwards Next may be earlier than before. send gets frames of its
// own, as Input's does.
func (l *LAN) Resolve(dst netip.Addr, p Pending, now time.Time, send func(frame []byte)) {
	t := l.begin(now)
	l.mu.Lock()
	l.resolve(&t, dst, p)
	l.mu.Unlock()
	t.finish(send)
}

func (l *LAN) resolve(t *turn, dst netip.Addr, p Pending) {
	if to, ok := l.Lookup(dst); ok {
		t.send(to, p)
		return
	}
	if !l.isOnLink(dst) || l.isOwn(dst) {
		l.drop(DropOffLink)
		t.drop(p)
		return
	}
	k := keyOf(dst)
	q := l.resolver.open[k]
	fresh := q == nil
	if fresh {
		q = l.resolver.begin(k)
	}
	if q == nil {
		l.drop(DropPendingFull)
		t.drop(p)
		return
	}
	if victim := l.resolver.wait(q, p); victim != nil {
		l.drop(DropPendingFull)
		t.drop(victim)
	}
	if fresh {
		l.ask(t, q)
	}
}

// ask sends q's question and sets when it is due again.
func (l *LAN) ask(t *turn, q *asking) {
	q.asked++
	q.due = t.now + askInterval
	l.resolver.due.remove(&q.place)
	l.resolver.due.push(&q.place)
	if q.key.is4() {
		l.arpAsk(t, q)
	} else {
		l.ndpAsk(t, q)
	}
}

// askAgain serves the questions that are due: it repeats them, gives up on them,
// or gives the address to the one who claims it.
func (l *LAN) askAgain(t *turn) {
	for {
		q, ok := l.resolver.due.oldest()
		switch {
		case !ok || q.due > t.now:
			return
		case q.asked < askTimes:
			l.ask(t, q)
		case q.claimant != 0:
			l.settle(t, q, q.claimant)
		default:
			for _, p := range l.resolver.end(q) {
				l.drop(DropUnresolved)
				t.drop(p)
			}
		}
	}
}
