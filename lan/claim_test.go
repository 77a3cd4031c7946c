package lan

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestDispute lets guest B claim A's address in each way there is; A is asked by
// unicast, answers in each way there is, and keeps it.
func TestDispute(t *testing.T) {
	type say func() []byte
	for _, fam := range []struct {
		name   string
		addr   netip.Addr
		claims []say
		proofs []say
	}{
		{
			"IPv4", a4,
			[]say{
				func() []byte { return dataFrame(guestB, a4, far4) },
				func() []byte { return whoHas(guestB, a4, gateway4) },
				func() []byte { return whoHas(guestB, a4, a4) },
				func() []byte { return isAt(guestB, a4) },
				func() []byte { return arpFrame(broadcast(), guestB, header.ARPReply, a4, a4) },
			},
			[]say{func() []byte { return isAt(guestA, a4) }, func() []byte { return dataFrame(guestA, a4, far4) }},
		},
		{
			"IPv6", a6,
			[]say{
				func() []byte { return dataFrame(guestB, a6, far6) },
				func() []byte { return solicit(guestB, a6, gateway6, lla(optSourceLLA, guestB)...) },
				func() []byte { return advert(guestB, a6, allNodes(), naOverride, lla(optTargetLLA, guestB)...) },
				func() []byte { return advert(guestB, a6, gateway6, naSolicited|naOverride) },
			},
			[]say{func() []byte { return advert(guestA, a6, gateway6, naSolicited) }, func() []byte { return dataFrame(guestA, a6, far6) }},
		},
	} {
		for i, claim := range fam.claims {
			for j, proof := range fam.proofs {
				t.Run(fam.name, func(t *testing.T) {
					r := quiet(t, nil)
					r.delivered(dataFrame(guestA, fam.addr, farOf(fam.addr)))
					r.dropped(claim(), DropSpoofed)
					if q := r.one(); MAC(q[:6]) != guestA {
						t.Fatalf("claim %d: the question went to %x", i, q[:6])
					}
					for range 5 { // no more is asked meanwhile
						r.dropped(claim(), DropSpoofed)
					}
					r.none()
					r.at(fam.addr, guestA)
					if v := r.in(proof()); v != Consumed && v != Deliver {
						t.Fatalf("proof %d: verdict %d", j, v)
					}
					r.event(EventMoveRefused, 1)
					r.advance(10 * time.Second)
					r.none()
					r.at(fam.addr, guestA)
					r.event(EventMoved, 0)
				})
			}
		}
	}
}

func farOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return far4
	}
	return far6
}

// TestTakeover gives the address of a guest that is gone to the one who claims it,
// though it says so only once.
func TestTakeover(t *testing.T) {
	r := quiet(t, nil)
	r.delivered(dataFrame(guestA, a4, far4))
	r.dropped(whoHas(guestB, a4, a4), DropSpoofed)
	r.advance(askTimes*askInterval - 1)
	r.at(a4, guestA)
	r.advance(1)
	r.at(a4, guestB)
	if n := len(r.take()); n != askTimes {
		t.Errorf("asked %d times, want %d", n, askTimes)
	}
	r.delivered(dataFrame(guestB, a4, far4))
	r.event(EventMoved, 1)

	// It comes back, and is told that it is too late.
	r.dropped(dataFrame(guestA, a4, far4), DropSpoofed)
	if q := r.one(); MAC(q[:6]) != guestB {
		t.Errorf("the question went to %x", q[:6])
	}
	r.consumed(isAt(guestB, a4))
	r.at(a4, guestB)
	s := r.l.Stats()
	if s.Neighbors != 1 || s.Stations != 1 || s.Resolving != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDisputeHold asks a holder no more than once a second, however often it is
// claimed against.
func TestDisputeHold(t *testing.T) {
	r := quiet(t, nil)
	r.delivered(dataFrame(guestA, a4, far4))
	asked := 0
	for range 100 {
		r.dropped(dataFrame(guestB, a4, far4), DropSpoofed)
		if n := len(r.take()); n > 0 {
			asked += n
			r.consumed(isAt(guestA, a4))
		}
		r.advance(100 * time.Millisecond)
	}
	if asked < 9 || asked > 10 {
		t.Errorf("asked %d times in 10 s, want once a second", asked)
	}
	r.event(EventMoveRefused, uint64(asked))
}

// TestDisputesBounded leaves half of the questions to packets that want to go out.
func TestDisputesBounded(t *testing.T) {
	r := quiet(t, func(o *Options) { o.MaxPending = 8 })
	for i := range 100 {
		from := netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + i)})
		r.delivered(dataFrame(guestA, from, far4))
		r.dropped(dataFrame(guestB, from, far4), DropSpoofed)
	}
	if s := r.l.Stats(); s.Resolving != 4 {
		t.Errorf("%d questions are open, want 4", s.Resolving)
	}
	for i := range 100 { // as those are answered, others are asked
		from := netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + i)})
		r.dropped(dataFrame(guestB, from, far4), DropSpoofed)
		r.consumed(isAt(guestA, from))
	}
	r.event(EventMoveRefused, 100)
	p := r.out(ip("198.18.0.200"))
	r.consumed(isAt(guestC, ip("198.18.0.200")))
	if p.to != guestC {
		t.Errorf("the packet is %+v", p)
	}
}

// TestDisputeOfForgotten asks the holder of an address that was evicted while it
// was in dispute, and lets packets wait for the outcome.
func TestDisputeOfForgotten(t *testing.T) {
	for _, answers := range []bool{true, false} {
		r := quiet(t, func(o *Options) { o.MaxNeighbors = 1 })
		r.delivered(dataFrame(guestA, a4, far4))
		r.dropped(dataFrame(guestB, a4, far4), DropSpoofed)
		r.delivered(dataFrame(guestC, ip("198.18.0.99"), far4))
		r.at(a4, MAC{})
		p := r.out(a4)
		r.dropped(dataFrame(guestB, a4, far4), DropSpoofed)
		want := guestB
		if answers {
			r.consumed(isAt(guestA, a4))
			want = guestA
		}
		r.advance(askTimes * askInterval)
		if p.to != want || p.calls != 1 {
			t.Errorf("answers %v: the packet is %+v", answers, p)
		}
	}
}

// TestLeaseHolds takes a leased or reserved address for its client's before it was
// seen to use it.
func TestLeaseHolds(t *testing.T) {
	reserved := ip("198.18.0.33")
	r := quiet(t, func(o *Options) {
		o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestA: reserved}}
	})
	r.dropped(dataFrame(guestB, reserved, far4), DropSpoofed)
	if q := r.one(); MAC(q[:6]) != guestA {
		t.Fatalf("the question went to %x", q[:6])
	}
	r.consumed(isAt(guestA, reserved))
	r.at(reserved, guestA)
	r.event(EventMoveRefused, 1)

	// A packet waits for an address that another answers for than it is leased to.
	r = quiet(t, func(o *Options) {
		o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestA: reserved}}
	})
	p := r.out(reserved)
	r.dropped(isAt(guestB, reserved), DropSpoofed)
	r.advance(askTimes * askInterval)
	if p.to != guestB {
		t.Errorf("the packet is %+v, want it sent to who answered", p)
	}
	r.event(EventMoved, 1)
}

// TestForget believes the next who claims an address, at once.
func TestForget(t *testing.T) {
	r := quiet(t, nil)
	r.delivered(dataFrame(guestA, a4, far4))
	r.l.Forget()
	r.delivered(dataFrame(guestB, a4, far4))
	r.at(a4, guestB)
	r.event(EventExpired, 1)
	if s := r.l.Stats(); s.Neighbors != 1 || s.Stations != 1 || s.Resolving != 0 {
		t.Errorf("%+v", s)
	}
}
