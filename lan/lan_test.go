package lan

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestGolden gives golden frames and expects golden answers, byte for byte.
func TestGolden(t *testing.T) {
	announcing := func(o *Options) {
		o.RA = RAOptions{On: true, DNS: []netip.Addr{ip("fd00:18::53")}}
		o.DHCP = DHCPOptions{
			On: true, DNS: []netip.Addr{ip("198.18.0.53")},
			Routes: []Route{{network("203.0.113.0/24"), ip("198.18.0.9")}},
		}
	}
	for _, c := range []struct{ name, in, out string }{
		{"ARP", goldenARPRequest, goldenARPReply},
		{"NS", goldenNS, goldenNA},
		{"DAD", goldenDADProbe, goldenDADDefence},
		{"RS", goldenRS, goldenRA},
		{"DHCP", goldenDiscover, goldenOffer},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, announcing)
			r.consumed(unhex(c.in))
			if c.name == "RS" {
				r.none()
				r.advance(minDelayBetween)
			}
			if got := r.one(); !bytes.Equal(got, unhex(c.out)) {
				t.Errorf("answered\n%x, want\n%x", got, unhex(c.out))
			}
		})
	}
	t.Run("asking", func(t *testing.T) {
		r := quiet(t, nil)
		r.out(a4)
		if got := r.one(); !bytes.Equal(got, unhex(goldenARPAsk)) {
			t.Errorf("asked\n%x, want\n%x", got, unhex(goldenARPAsk))
		}
		r.out(a6)
		if got := r.one(); !bytes.Equal(got, unhex(goldenNDPAsk)) {
			t.Errorf("asked\n%x, want\n%x", got, unhex(goldenNDPAsk))
		}
	})
}

// TestIntroduction announces every address of the gateway twice.
func TestIntroduction(t *testing.T) {
	r := newRig(t, nil)
	if !r.l.Next().Equal(r.now) {
		t.Errorf("first tick is due at %v, want at once", r.l.Next())
	}
	for range announceTimes {
		r.l.Tick(r.now, r.send)
		s := r.take()
		if len(s) != 3 || !bytes.Equal(s[0], unhex(goldenARPAnnouncement)) {
			t.Fatalf("sent %x", s)
		}
		if want := unhex(goldenDADDefence); !bytes.Equal(s[1], want) {
			t.Errorf("sent\n%x, want\n%x", s[1], want)
		}
		for _, f := range s {
			checkFrame(t, f)
		}
		r.now = r.now.Add(announceInterval)
	}
	r.l.Tick(r.now, r.send)
	r.none()
	if !r.l.Next().IsZero() {
		t.Errorf("a tick is due at %v though nothing is", r.l.Next())
	}
}

// TestLinkUp introduces the gateway once more, and advertises it.
func TestLinkUp(t *testing.T) {
	r := quiet(t, func(o *Options) { o.RA.On = true })
	r.advance(time.Hour)
	r.take()
	r.l.LinkUp(r.now)
	r.advance(announceInterval)
	if n := len(r.take()); n != announceTimes*3+1 {
		t.Errorf("%d frames, want two announcements of three addresses and an advertisement", n)
	}
	r.l.LinkUp(r.now) // it flaps: the advertisement is held back
	r.l.Tick(r.now, r.send)
	if n := len(r.take()); n != 3 {
		t.Errorf("%d frames when the link flaps, want three announcements", n)
	}
	r.advance(minDelayBetween - announceInterval)
	if f := r.one(); f[54] != ndpRA {
		t.Errorf("sent %x, want an advertisement", f)
	}
}

// TestEthernet has a row for each way a frame is refused by its Ethernet header.
func TestEthernet(t *testing.T) {
	r := quiet(t, nil)
	good := dataFrame(guestA, a4, far4)
	with := func(at int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[at:], b)
		return f
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  DropReason
	}{
		{"nothing", nil, DropTruncated},
		{"13 bytes", good[:13], DropTruncated},
		{"no IPv4 header", good[:HdrLen+19], DropTruncated},
		{"no IPv6 header", dataFrame(guestA, a6, far6)[:HdrLen+39], DropTruncated},
		{"IPv6 as IPv4", with(14, 0x65), DropVersion},
		{"IPv4 as IPv6", append(with(12, 0x86, 0xdd), make([]byte, 20)...), DropVersion},
		{"for another", with(0, guestB[:]...), DropDestination},
		{"from a group", with(6, 1, 0, 0, 0, 0, 1), DropSourceMAC},
		{"from everybody", with(6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), DropSourceMAC},
		{"from nobody", with(6, 0, 0, 0, 0, 0, 0), DropSourceMAC},
		{"from us", with(6, gateway[:]...), DropSourceMAC},
		{"VLAN", with(12, 0x81, 0), DropVLAN},
		{"QinQ", with(12, 0x88, 0xa8), DropVLAN},
		{"LLDP", with(12, 0x88, 0xcc), DropEtherType},
		{"802.3", with(12, 0, 38), DropEtherType},
		{"broadcast", with(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), DropMulticast},
		{"multicast", udpFrame(groupMAC(ip("224.0.0.251")), guestA, netip.AddrPortFrom(a4, 5353), netip.MustParseAddrPort("224.0.0.251:5353"), nil), DropMulticast},
		{"multicast v6", udpFrame(groupMAC(ip("ff02::fb")), guestA, netip.AddrPortFrom(a6, 5353), netip.MustParseAddrPort("[ff02::fb]:5353"), nil), DropMulticast},
		{"another group", udpFrame(groupMAC(ip("ff02::fc")), guestA, netip.AddrPortFrom(a6, 5353), netip.MustParseAddrPort("[ff02::fb]:5353"), nil), DropDestination},
		{"unicast in a group", udpFrame(groupMAC(ip("ff02::fb")), guestA, netip.AddrPortFrom(a6, 5353), netip.AddrPortFrom(gateway6, 5353), nil), DropDestination},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.TB = t
			r.dropped(c.frame, c.want)
		})
	}
	r.TB = t
	r.none()
	if n := r.l.Stats().Neighbors; n != 0 {
		t.Errorf("%d neighbors learned from frames that were dropped", n)
	}
}

// TestSource has a row for each kind of source address.
func TestSource(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           bool
	}{
		{"guest", "198.18.0.10", "192.0.2.1", true},
		{"guest v6", "fd00:18::a", "2001:db8::1", true},
		{"guest's link-local", "fe80::a", "fd00:18::1", true},
		{"behind a guest", "10.9.8.7", "192.0.2.1", true},
		{"the gateway", "198.18.0.1", "192.0.2.1", false},
		{"the gateway v6", "fd00:18::1", "2001:db8::1", false},
		{"the gateway's link-local", "fe80::ff:fe00:1", "2001:db8::1", false},
		{"off the link", "198.18.1.10", "192.0.2.1", false},
		{"off the link v6", "fd00:19::a", "2001:db8::1", false},
		{"nobody", "0.0.0.0", "192.0.2.1", false},
		{"nobody v6", "::", "2001:db8::1", false},
		{"everybody", "255.255.255.255", "192.0.2.1", false},
		{"a group", "224.0.0.1", "192.0.2.1", false},
		{"a group v6", "ff02::1", "2001:db8::1", false},
		{"loopback", "127.0.0.1", "192.0.2.1", false},
		{"loopback v6", "::1", "2001:db8::1", false},
		{"mapped", "::ffff:198.18.0.10", "2001:db8::1", false},
		{"IPv4's key", "ffff:ffff:ffff:ffff::c612:a", "2001:db8::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, func(o *Options) { o.OnLink = []netip.Prefix{network("10.9.0.0/16")} })
			f := dataFrame(guestA, ip(c.from), ip(c.to))
			if !c.want {
				r.delivered(dataFrame(guestA, a4, far4)) // the key of IPv4's is there
				r.dropped(f, DropSource)
				return
			}
			r.delivered(f, f)
			r.at(ip(c.from), guestA)
			r.event(EventLearned, 1)
		})
	}
}

// TestFamily serves the families that the gateway has an address of.
func TestFamily(t *testing.T) {
	r := quiet(t, func(o *Options) { o.Addresses = o.Addresses[:1] })
	r.delivered(dataFrame(guestA, a4, far4))
	r.dropped(dataFrame(guestA, a6, far6), DropFamily)
	r.dropped(unhex(goldenNS), DropFamily)
	r = quiet(t, func(o *Options) { o.Addresses = o.Addresses[1:] })
	r.delivered(dataFrame(guestA, a6, far6))
	r.dropped(dataFrame(guestA, a4, far4), DropFamily)
	r.dropped(unhex(goldenARPRequest), DropFamily)
}

// TestHead tells from the first bytes of a frame what it is.
func TestHead(t *testing.T) {
	r := quiet(t, func(o *Options) { o.DHCP.On = true })
	for _, f := range [][]byte{unhex(goldenDiscover), append(unhex(goldenNS), make([]byte, 200)...)} {
		if v := r.l.Input(Frame{Data: f[:HeadLen], Len: len(f)}, r.now, r.send); v != Incomplete {
			t.Errorf("verdict %d on the head of a message, want Incomplete", v)
		}
		r.none()
	}
	f := dataFrame(guestA, a4, far4)
	if v := r.l.Input(Frame{Data: f, Len: 65000}, r.now, r.send); v != Deliver {
		t.Errorf("verdict %d on the head of a superframe, want Deliver", v)
	}
}

// TestFarewell ends the default route and what waits.
func TestFarewell(t *testing.T) {
	r := quiet(t, func(o *Options) { o.RA.On = true })
	p := r.out(a4)
	r.take()
	r.l.Farewell(r.now, r.send)
	f := r.one()
	checkFrame(t, f)
	if f[54] != ndpRA || f[60] != 0 || f[61] != 0 {
		t.Errorf("sent %x, want an advertisement with lifetime 0", f)
	}
	if !p.dropped || p.calls != 1 {
		t.Errorf("what waited is %+v, want it dropped", p)
	}
	r.consumed(unhex(goldenRS))
	r.advance(time.Hour)
	r.none()
}

// TestConcurrent uses a LAN from many goroutines, for the race detector.
func TestConcurrent(t *testing.T) {
	r := quiet(t, func(o *Options) { o.MaxNeighbors, o.MaxPerStation, o.RA.On, o.DHCP.On = 64, 16, true, true })
	base := r.now
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			discard := func([]byte) {}
			for i := range 2000 {
				now := base.Add(time.Duration(i) * 10 * time.Millisecond)
				from := netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + i%100)})
				src := MAC{2, 0, 0, 0, byte(g), byte(i % 8)}
				r.l.Input(Frame{Data: dataFrame(src, from, far4)}, now, discard)
				r.l.Lookup(from)
				r.l.Resolve(netip.AddrFrom4([4]byte{198, 18, 0, byte(150 + i%100)}), &packet{}, now, discard)
				if i%16 == 0 {
					r.l.Tick(now, discard)
					r.l.Input(Frame{Data: unhex(goldenDiscover)}, now, discard)
					r.l.Input(Frame{Data: unhex(goldenRS)}, now, discard)
					_, _ = r.l.Next(), r.l.Stats()
				}
			}
		})
	}
	wg.Wait()
	if s := r.l.Stats(); s.Neighbors > 64 || s.Pending > 256 {
		t.Errorf("bounds broken: %+v", s)
	}
}

// TestNames gives every counter a label of its own.
func TestNames(t *testing.T) {
	seen := map[string]bool{"": true, "unknown": true}
	for r := range NumDropReasons {
		if seen[r.String()] {
			t.Errorf("drop reason %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
	for e := range NumEvents {
		if seen[e.String()] {
			t.Errorf("event %d is called %q", e, e)
		}
		seen[e.String()] = true
	}
	if NumDropReasons.String() != "unknown" || NumEvents.String() != "unknown" || ProxyMode(9).String() != "unknown" {
		t.Error("what is out of range has a name")
	}
	if DropDHCPFull.Inbound() != true || DropOffLink.Inbound() != false {
		t.Error("direction of a drop")
	}
}
