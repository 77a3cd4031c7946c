package lan

import (
	"net/netip"
	"testing"
	"time"
)

// TestLookupGroups maps group addresses without asking.
func TestLookupGroups(t *testing.T) {
	r := quiet(t, nil)
	for _, c := range []struct {
		addr string
		want MAC
	}{
		{"224.0.0.251", MAC{0x01, 0x00, 0x5e, 0, 0, 0xfb}},
		{"239.129.2.3", MAC{0x01, 0x00, 0x5e, 1, 2, 3}}, // 23 bits alone (RFC 1112, 6.4)
		{"255.255.255.255", broadcast()},
		{"ff02::1:ff00:1", MAC{0x33, 0x33, 0xff, 0, 0, 1}},
		{"ffff:ffff:ffff:ffff::c612:a", MAC{0x33, 0x33, 0xc6, 0x12, 0, 0x0a}},
		{"198.18.0.10", MAC{}},
		{"192.0.2.1", MAC{}},
	} {
		r.at(ip(c.addr), c.want)
	}
	p := r.out(ip("ff02::1"))
	if p.to != (MAC{0x33, 0x33, 0, 0, 0, 1}) {
		t.Errorf("sent to %v", p.to)
	}
	r.none()
}

// TestResolve sends what waited when the answer comes, in order, and nothing twice.
func TestResolve(t *testing.T) {
	for _, c := range []struct {
		addr   netip.Addr
		answer []byte
	}{
		{a4, isAt(guestA, a4)},
		{a4, dataFrame(guestA, a4, far4)},
		{a4, whoHas(guestA, a4, b4)},
		{a6, advert(guestA, a6, gateway6, naSolicited|naOverride, lla(optTargetLLA, guestA)...)},
		{a6, advert(guestA, a6, gateway6, naSolicited)},
		{a6, dataFrame(guestA, a6, far6)},
	} {
		r := quiet(t, nil)
		first, second := r.out(c.addr), r.out(c.addr)
		if q := r.one(); MAC(q[:6]) == guestA {
			t.Errorf("%v: asked the one who is not known", c.addr)
		}
		if s := r.l.Stats(); s.Resolving != 1 || s.Pending != 2 {
			t.Errorf("%+v", s)
		}
		r.in(c.answer)
		if first.to != guestA || second.to != guestA || first.calls+second.calls != 2 {
			t.Errorf("%v: sent %+v and %+v", c.addr, first, second)
		}
		third := r.out(c.addr)
		if third.to != guestA {
			t.Errorf("%v: third is %+v", c.addr, third)
		}
		r.advance(time.Minute)
		r.none()
		if s := r.l.Stats(); s.Resolving != 0 || s.Pending != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestUnresolved asks three times a second apart and drops what waited; the next
// packet begins anew.
func TestUnresolved(t *testing.T) {
	r := quiet(t, nil)
	for range 2 {
		p := r.out(a4)
		for range 2 {
			r.one()
			r.advance(askInterval)
		}
		r.one()
		if p.calls != 0 {
			t.Fatalf("given up too early")
		}
		r.advance(askInterval)
		r.none()
		if !p.dropped || p.calls != 1 {
			t.Errorf("the packet is %+v", p)
		}
	}
	if s := r.l.Stats(); s.Drops[DropUnresolved] != 2 || s.Events[EventARPAsked] != 6 || s.Resolving != 0 || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

// TestPendingBounds drops the oldest of an address, and the newest of all.
func TestPendingBounds(t *testing.T) {
	r := quiet(t, func(o *Options) { o.MaxPending = 6 })
	var all []*packet
	for range 5 {
		all = append(all, r.out(a4))
	}
	for i, p := range all {
		if p.dropped != (i == 0) {
			t.Errorf("packet %d of 5 for one address: %+v", i, p)
		}
	}
	r.out(b4)
	r.out(b4)
	if p := r.out(b4); !p.dropped {
		t.Errorf("a packet past MaxPending waits")
	}
	r.consumed(isAt(guestA, a4))
	if p := r.out(b4); p.dropped {
		t.Errorf("no room though four were sent")
	}
	if s := r.l.Stats(); s.Pending != 3 || s.Drops[DropPendingFull] != 2 {
		t.Errorf("%+v", s)
	}
	// Addresses are bounded by the same number.
	r = quiet(t, func(o *Options) { o.MaxPending = 2 })
	r.out(a4)
	r.out(b4)
	if p := r.out(ip("198.18.0.99")); !p.dropped {
		t.Error("a third address is asked for")
	}
}

// TestOffLink drops what no guest can be sent.
func TestOffLink(t *testing.T) {
	r := quiet(t, nil)
	for _, a := range []string{"192.0.2.1", "2001:db8::1", "198.18.0.1", "fd00:18::1", "0.0.0.0", "::", "127.0.0.1"} {
		if p := r.out(ip(a)); !p.dropped {
			t.Errorf("a packet to %s waits", a)
		}
	}
	r.none()
	if n := r.l.Stats().Drops[DropOffLink]; n != 7 {
		t.Errorf("counted %d", n)
	}
}

// TestAskFrom asks for an address from the gateway's in the same network.
func TestAskFrom(t *testing.T) {
	r := quiet(t, func(o *Options) {
		o.Addresses = append(o.Addresses, network("203.0.113.1/24"))
		o.OnLink = []netip.Prefix{network("10.0.0.0/8")}
	})
	for to, from := range map[string]string{"198.18.0.10": "198.18.0.1", "203.0.113.9": "203.0.113.1", "10.1.2.3": "198.18.0.1"} {
		r.out(ip(to))
		if f := r.one(); netip.AddrFrom4([4]byte(f[28:32])) != ip(from) {
			t.Errorf("%s is asked for from %v", to, f[28:32])
		}
	}
}
