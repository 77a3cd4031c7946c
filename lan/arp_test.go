package lan

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestARP has a row for each rule of RFC 826 and RFC 5227 about who is answered.
func TestARP(t *testing.T) {
	own := []netip.Addr{gateway4, ip("203.0.113.1")}
	for _, c := range []struct {
		name           string
		sender, target string
		op             header.ARPOp
		answered       bool
		learned        bool
	}{
		{"for the gateway", "198.18.0.10", "198.18.0.1", header.ARPRequest, true, true},
		{"for its other address", "198.18.0.10", "203.0.113.1", header.ARPRequest, true, true},
		{"probe of the gateway's (5227, 2.1.1)", "0.0.0.0", "198.18.0.1", header.ARPRequest, true, false},
		{"probe of a guest's", "0.0.0.0", "198.18.0.10", header.ARPRequest, false, false},
		{"for another guest", "198.18.0.10", "198.18.0.11", header.ARPRequest, false, false},
		{"for one beyond", "198.18.0.10", "192.0.2.1", header.ARPRequest, false, false},
		{"announcement (5227, 2.3)", "198.18.0.10", "198.18.0.10", header.ARPRequest, false, false},
		{"reply nobody asked for", "198.18.0.10", "198.18.0.1", header.ARPReply, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, func(o *Options) { o.Addresses = append(o.Addresses, netip.PrefixFrom(own[1], 24)) })
			dst := broadcast()
			if c.op == header.ARPReply {
				dst = gateway
			}
			r.consumed(arpFrame(dst, guestA, c.op, ip(c.sender), ip(c.target)))
			if !c.answered {
				r.none()
			} else if got := r.one(); !bytes.Equal(got, arpReplyTo(guestA, ip(c.target), ip(c.sender))) {
				t.Errorf("answered %x", got)
			}
			if n := r.l.Stats().Neighbors; (n == 1) != c.learned {
				t.Errorf("%d neighbors, learned should be %v", n, c.learned)
			}
		})
	}
}

func arpReplyTo(to MAC, sender, target netip.Addr) []byte {
	return arpFrame(to, gateway, header.ARPReply, sender, target)
}

// TestARPUpdates notes a neighbor that is known whatever the packet is for (RFC 826,
// "Packet Reception": the merge).
func TestARPUpdates(t *testing.T) {
	r := quiet(t, nil)
	r.consumed(whoHas(guestA, a4, gateway4))
	for range 4 {
		r.advance(time.Minute)
		r.consumed(whoHas(guestA, a4, b4))
	}
	r.at(a4, guestA)
	r.advance(defaultNeighborTTL)
	r.at(a4, MAC{})
	r.event(EventExpired, 1)
}

// TestARPRefused has a row for each way a packet is refused.
func TestARPRefused(t *testing.T) {
	good := whoHas(guestA, a4, gateway4)
	for _, c := range []struct {
		name   string
		change func(f []byte) []byte
		want   DropReason
	}{
		{"cut", func(f []byte) []byte { return f[:HdrLen+27] }, DropARP},
		{"hardware type", func(f []byte) []byte { f[15] = 6; return f }, DropARP},
		{"protocol", func(f []byte) []byte { f[16] = 0x86; return f }, DropARP},
		{"hardware length", func(f []byte) []byte { f[18] = 8; return f }, DropARP},
		{"protocol length", func(f []byte) []byte { f[19] = 16; return f }, DropARP},
		{"operation", func(f []byte) []byte { f[21] = 3; return f }, DropARP},
		{"about another's MAC", func(f []byte) []byte { f[27] = 0x0b; return f }, DropARP},
		{"to a multicast group", func(f []byte) []byte { copy(f, []byte{1, 0, 0x5e, 0, 0, 1}); return f }, DropARP},
		{"from off the link", func([]byte) []byte { return whoHas(guestA, far4, gateway4) }, DropSource},
		{"from a group", func([]byte) []byte { return whoHas(guestA, ip("224.0.0.1"), gateway4) }, DropSource},
		{"from the gateway's address", func([]byte) []byte { return whoHas(guestA, gateway4, a4) }, DropSource},
		{"reply from nobody", func([]byte) []byte { return isAt(guestA, netip.IPv4Unspecified()) }, DropSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, nil)
			r.dropped(c.change(bytes.Clone(good)), c.want)
			if n := r.l.Stats().Neighbors; n != 0 {
				t.Errorf("%d neighbors", n)
			}
		})
	}
}

// TestDefence announces an address of the gateway that a guest uses, once in 10 s
// (RFC 5227, section 2.4 (c)).
func TestDefence(t *testing.T) {
	r := quiet(t, nil)
	for range 3 {
		for _, f := range [][]byte{
			whoHas(guestA, gateway4, gateway4), isAt(guestA, gateway4),
			advert(guestA, gateway6, allNodes(), naOverride, lla(optTargetLLA, guestA)...),
			solicit(guestA, gateway6, a6, lla(optSourceLLA, guestA)...),
		} {
			r.dropped(f, DropSource)
		}
		if got := r.one(); !bytes.Equal(got, unhex(goldenARPAnnouncement)) {
			t.Errorf("defended by %x", got)
		}
		r.advance(defendInterval)
	}
	r.event(EventConflict, 12)
}

// TestProxy has every mode against every kind of target, for both families.
func TestProxy(t *testing.T) {
	reserved := ip("198.18.0.33")
	for _, c := range []struct {
		target                      string
		own, prefixes, offLink, all bool
	}{
		{"198.18.0.1", true, true, true, true}, // the gateway's
		{"fd00:18::1", true, true, true, true},
		{"192.0.2.1", false, true, true, true}, // in ProxyPrefixes
		{"2001:db8::1", false, true, true, true},
		{"203.0.113.1", false, false, true, true}, // beyond
		{"2001:db9::1", false, false, true, true},
		{"198.18.0.99", false, false, false, true}, // on the link, nobody's by what is known
		{"fd00:18::99", false, false, false, true},
		{"198.18.0.11", false, false, false, false}, // a guest's
		{"fd00:18::b", false, false, false, false},
		{"198.18.0.33", false, false, false, false}, // reserved for a guest
		{"198.18.0.0", false, false, false, false},  // the network's
		{"198.18.0.255", false, false, false, false},
		{"169.254.1.1", false, false, false, false}, // of the link itself
		{"fe80::99", false, false, false, false},
		{"127.0.0.1", false, false, false, false},
		{"::1", false, false, false, false},
		{"224.0.0.1", false, false, false, false},
		{"255.255.255.255", false, false, false, false},
		{"0.0.0.0", false, false, false, false},
	} {
		for mode, want := range map[ProxyMode]bool{ProxyOwn: c.own, ProxyPrefixes: c.prefixes, ProxyOffLink: c.offLink, ProxyAll: c.all} {
			t.Run(mode.String()+" "+c.target, func(t *testing.T) {
				r := quiet(t, func(o *Options) {
					o.Proxy = mode
					if mode == ProxyPrefixes {
						o.ProxyPrefixes = []netip.Prefix{network("192.0.2.0/24"), network("2001:db8::/32"), network("198.18.0.8/30")}
					}
					o.DHCP = DHCPOptions{On: true, Reserved: map[MAC]netip.Addr{guestC: reserved}}
				})
				r.delivered(dataFrame(guestB, b4, far4), dataFrame(guestB, b6, far6))
				checkProxy(t, r, ip(c.target), want)
			})
		}
	}
}

// checkProxy asks for target, and probes whether it is free.
func checkProxy(t *testing.T, r *rig, target netip.Addr, want bool) {
	t.Helper()
	own := r.l.isOwn(target)
	if target.Is4() && r.l.isOnLink(target) && !own && target != b4 {
		r.in(whoHas(guestC, target, target)) // an announcement is no question
		if got := r.take(); len(got) != 0 {
			t.Errorf("announcement answered by %x", got)
		}
	}
	ask, probe := whoHas(guestA, a4, target), whoHas(guestA, netip.IPv4Unspecified(), target)
	if target.Is6() {
		ask = solicit(guestA, allA, target, lla(optSourceLLA, guestA)...)
		probe = solicit(guestA, netip.IPv6Unspecified(), target)
	}
	r.consumed(ask)
	if got := r.take(); (len(got) == 1) != want {
		t.Fatalf("answered by %x, want %v", got, want)
	} else if want {
		checkFrame(t, got[0])
		if target.Is6() && (got[0][58]&naOverride != 0) != own {
			t.Errorf("flags %#x: only the gateway's own addresses override", got[0][58])
		}
	}
	r.consumed(probe)
	if got := r.take(); (len(got) == 1) != own {
		t.Errorf("probe answered by %x, want %v", got, own)
	}
}
