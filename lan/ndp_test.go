package lan

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// TestNDPRefused has a row for each check of RFC 4861, sections 6.1 and 7.1, and for
// what guests have no business to send.
func TestNDPRefused(t *testing.T) {
	ll := lla(optSourceLLA, guestA)
	tl := lla(optTargetLLA, guestA)
	nobody := netip.IPv6Unspecified()
	group := solicitedNode(gateway6)
	target := gateway6.AsSlice()
	ns := func(h ip6, tail ...[]byte) []byte {
		if h.mac == (MAC{}) {
			h.mac = groupMAC(h.dst)
		}
		h.from = guestA
		return icmpFrame(h, bytes.Join(append([][]byte{{ndpNS, 0, 0, 0, 0, 0, 0, 0}}, tail...), nil))
	}
	message := func(typ, code byte, n int) []byte {
		return icmpFrame(ip6{gateway, guestA, allA, gateway6, 255}, append([]byte{typ, code}, make([]byte, n-2)...))
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  DropReason
	}{
		{"routed", ns(ip6{src: allA, dst: group, hops: 254}, target, ll), DropHopLimit},
		{"checksum", flip(ns(ip6{src: allA, dst: group, hops: 255}, target, ll), 56), DropChecksum},
		{"code", message(ndpNS, 1, 24), DropNDP},
		{"short NS", ns(ip6{src: allA, dst: group, hops: 255}, target[:15]), DropNDP},
		{"multicast target", ns(ip6{src: allA, dst: group, hops: 255}, allNodes().AsSlice()), DropNDP},
		{"option of length 0", ns(ip6{src: allA, dst: group, hops: 255}, target, []byte{1, 0, 2, 0, 0, 0, 0, 10}), DropNDP},
		{"unknown option of length 0", ns(ip6{src: allA, dst: group, hops: 255}, target, []byte{14, 0, 2, 0, 0, 0, 0, 10}), DropNDP},
		{"option cut", ns(ip6{src: allA, dst: group, hops: 255}, target, ll[:7]), DropNDP},
		{"option of one byte", ns(ip6{src: allA, dst: group, hops: 255}, target, ll[:1]), DropNDP},
		{"address option of 16 bytes", ns(ip6{src: allA, dst: group, hops: 255}, target, []byte{1, 2}, guestA[:], make([]byte, 8)), DropNDP},
		{"address option of 264 bytes", ns(ip6{src: allA, dst: group, hops: 255}, target, []byte{1, 33}, guestA[:], make([]byte, 256)), DropNDP},
		{"another's MAC", ns(ip6{src: allA, dst: group, hops: 255}, target, lla(optSourceLLA, guestB)), DropNDP},
		{"probe with a MAC", ns(ip6{src: nobody, dst: group, hops: 255}, target, ll), DropNDP},
		{"probe by unicast", ns(ip6{mac: gateway, src: nobody, dst: gateway6, hops: 255}, target), DropNDP},
		{"from off the link", ns(ip6{src: far6, dst: group, hops: 255}, target, ll), DropSource},
		{"short NA", message(ndpNA, 0, 23), DropNDP},
		{"NA of a group", advert(guestA, allNodes(), gateway6, 0, tl...), DropSource},
		{"NA about a group", icmpFrame(ip6{gateway, guestA, allA, gateway6, 255}, append([]byte{ndpNA, 0, 0, 0, 0, 0, 0, 0}, allNodes().AsSlice()...)), DropNDP},
		{"solicited NA to all", advert(guestA, a6, allNodes(), naSolicited, tl...), DropNDP},
		{"NA with another's MAC", advert(guestA, a6, gateway6, naSolicited, lla(optTargetLLA, guestB)...), DropNDP},
		{"NA off the link", advert(guestA, far6, gateway6, naSolicited, tl...), DropSource},
		{"NA of the gateway's", advert(guestA, gateway6, allNodes(), 0, tl...), DropSource},
		{"short RS", message(ndpRS, 0, 7), DropTruncated},
		{"RS of nobody with a MAC", icmpFrame(ip6{gateway, guestA, nobody, gateway6, 255}, append(make([]byte, 0, 16), append([]byte{ndpRS, 0, 0, 0, 0, 0, 0, 0}, ll...)...)), DropNDP},
		{"RS with another's MAC", icmpFrame(ip6{gateway, guestA, allA, gateway6, 255}, append([]byte{ndpRS, 0, 0, 0, 0, 0, 0, 0}, lla(optSourceLLA, guestB)...)), DropNDP},
		{"RA", message(ndpRA, 0, 16), DropRogueRA},
		{"redirect", message(ndpRedirect, 0, 40), DropRedirect},
		{"cut", unhex(goldenNS)[:70], DropTruncated},
		{"behind a header", behindOptions(unhex(goldenNS), 60), DropNDP},
		{"behind hop-by-hop", behindOptions(unhex(goldenNS), 0), DropNDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, func(o *Options) { o.Proxy = ProxyAll })
			r.dropped(c.frame, c.want)
			if n := r.l.Stats().Neighbors; n != 0 {
				t.Errorf("%d neighbors", n)
			}
		})
	}
}

func flip(f []byte, at int) []byte {
	f[at] ^= 1
	return f
}

// behindOptions puts an extension header before the ICMPv6 message of a frame.
func behindOptions(f []byte, kind byte) []byte {
	ext := []byte{58, 0, 1, 4, 0, 0, 0, 0}
	g := bytes.Join([][]byte{f[:54], ext, f[54:]}, nil)
	g[20] = kind
	g[19] += 8
	return g
}

// TestNDPVerified trusts a device that vouches for a checksum, as it does for a
// partial one.
func TestNDPVerified(t *testing.T) {
	r := quiet(t, nil)
	f := flip(unhex(goldenNS), 56)
	if v := r.l.Input(Frame{Data: f, Verified: true}, r.now, r.send); v != Consumed {
		t.Errorf("verdict %d", v)
	}
	checkFrame(t, r.one())
}

// TestNSFromGlobal answers where the question came from: the group or by unicast,
// which is how a guest makes sure that the gateway is still there (section 7.3.3).
func TestNSFromGlobal(t *testing.T) {
	r := quiet(t, nil)
	m := append([]byte{ndpNS, 0, 0, 0, 0, 0, 0, 0}, gateway6.AsSlice()...)
	r.consumed(icmpFrame(ip6{gateway, guestA, a6, gateway6, 255}, m))
	f := r.one()
	checkFrame(t, f)
	if to := netip.AddrFrom16([16]byte(f[38:54])); MAC(f[:6]) != guestA || to != a6 {
		t.Errorf("answered to %v at %x", to, f[:6])
	}
	r.at(a6, guestA)
	r.event(EventNDPAnswered, 1)
}

// TestRA checks when advertisements come (sections 6.2.4 and 6.2.6).
func TestRA(t *testing.T) {
	r := newRig(t, func(o *Options) { o.RA.On = true })
	var at []time.Duration
	start := r.now
	for end := start.Add(4 * time.Hour); r.now.Before(end); {
		r.advance(r.l.Next().Sub(r.now))
		for _, f := range r.take() {
			checkFrame(t, f)
			if len(f) > 60 && f[54] == ndpRA {
				at = append(at, r.now.Sub(start))
			}
		}
	}
	if at[0] != 0 {
		t.Errorf("first at %v", at[0])
	}
	for i := 1; i < len(at); i++ {
		gap := at[i] - at[i-1]
		if i < initialRAs && gap > initialRAInterval || i >= initialRAs && (gap < 200*time.Second || gap > 600*time.Second) {
			t.Errorf("advertisement %d came after %v", i, gap)
		}
	}
	if len(at) < 4*6+2 {
		t.Errorf("%d advertisements in 4 hours", len(at))
	}
}

// TestRS has a guest solicit all the time: one advertisement in 3 s, and the first
// after no more than half a second.
func TestRS(t *testing.T) {
	r := quiet(t, func(o *Options) { o.RA.On = true })
	r.advance(time.Minute)
	r.take()
	r.consumed(unhex(goldenRS))
	r.none()
	r.advance(maxRADelay)
	checkFrame(t, r.one())
	r.at(allA, guestA)

	count := 0
	for range 600 {
		r.consumed(unhex(goldenRS))
		r.advance(100 * time.Millisecond)
		count += len(r.take())
	}
	if count < 16 || count > 20 {
		t.Errorf("%d advertisements in a minute of solicitations, want one in 3 s", count)
	}
	r.event(EventRS, 601)

	// A probing guest has no address yet.
	r.consumed(icmpFrame(ip6{groupMAC(ip("ff02::2")), guestB, netip.IPv6Unspecified(), ip("ff02::2"), 255}, make8(ndpRS)))
}

func make8(typ byte) []byte { return []byte{typ, 0, 0, 0, 0, 0, 0, 0} }

// TestRAOff advertises nothing.
func TestRAOff(t *testing.T) {
	r := quiet(t, nil)
	r.consumed(unhex(goldenRS))
	r.advance(time.Minute)
	r.none()
	r.event(EventRS, 1)
}

// TestRAOptions has the rows of what an advertisement says.
func TestRAOptions(t *testing.T) {
	build := func(change func(*Options)) []byte {
		r := newRig(t, func(o *Options) { o.RA.On = true; change(o) })
		f := r.l.routerAdvertisement(r.l.options.RA.RouterLifetime)
		checkFrame(t, f)
		return f[54:]
	}
	ra := build(func(o *Options) { o.RA.RouterLifetime = -1 })
	if ra[6] != 0 || ra[7] != 0 {
		t.Errorf("no default router has lifetime %x", ra[6:8])
	}
	ra = build(func(o *Options) {
		o.Addresses = append(o.Addresses, network("2001:db8::1/48"), network("fd00:18::2/64"), network("fe80::1/64"))
	})
	if want := raLen + 16 + 2*32; len(ra) != want {
		t.Fatalf("%d bytes, want %d: two networks, and none of link-local addresses", len(ra), want)
	}
	if a, b := ra[32:], ra[64:]; a[2] != 64 || a[3] != 0xc0 || b[2] != 48 || b[3] != 0x80 {
		t.Errorf("networks %x and %x: guests make addresses in 64 bits alone", a[:4], b[:4])
	}
}

// TestLinkLocal takes the configured link-local address instead of making one.
func TestLinkLocal(t *testing.T) {
	r := quiet(t, func(o *Options) {
		o.Addresses = append(o.Addresses, network("fe80::1/64"))
		o.RA.On = true
	})
	r.consumed(solicit(guestA, allA, ip("fe80::1"), lla(optSourceLLA, guestA)...))
	checkFrame(t, r.one())
	r.consumed(solicit(guestA, allA, ip("fe80::ff:fe00:1"), lla(optSourceLLA, guestA)...))
	r.none()
	if f := r.l.routerAdvertisement(time.Hour); netip.AddrFrom16([16]byte(f[22:38])) != ip("fe80::1") {
		t.Errorf("advertised by %x", f[22:38])
	}
}
