package lan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// everything turns every service on, with small bounds.
func everything(o *Options) {
	o.Proxy, o.ProxyPrefixes = ProxyPrefixes, []netip.Prefix{network("192.0.2.0/24"), network("2001:db8::/32")}
	o.MaxNeighbors, o.MaxPerStation, o.MaxPending = 8, 3, 4
	o.RA = RAOptions{On: true, DNS: []netip.Addr{ip("fd00:18::53")}}
	o.DHCP = DHCPOptions{
		On: true, First: ip("198.18.0.100"), Last: ip("198.18.0.105"), MaxLeases: 5, MaxPerStation: 2,
		Reserved: map[MAC]netip.Addr{guestC: ip("198.18.0.33")}, Routes: []Route{{Prefix: network("203.0.113.0/24")}},
	}
}

// checkLAN proves what must hold after whatever came in.
func (r *rig) checkLAN() {
	r.Helper()
	s := r.l.Stats()
	o := &r.l.options
	if s.Neighbors > o.MaxNeighbors || s.Pending > o.MaxPending || s.Resolving > o.MaxPending || s.Leases+s.Offers > o.DHCP.MaxLeases {
		r.Fatalf("bounds broken: %+v", s)
	}
	n := 0
	for at, own := range r.l.neighbors.stations {
		if len(own) == 0 || len(own) > o.MaxPerStation || at == 0 || at&groupBit != 0 || at == r.l.station {
			r.Fatalf("%v has %d addresses", at.mac(), len(own))
		}
		for _, x := range own {
			a := x.key.addr()
			if r.l.neighbors.find(x.key) != x || x.station() != at || !r.l.isOnLink(a) || r.l.isOwn(a) {
				r.Fatalf("%v is at %v", a, at.mac())
			}
			n++
		}
	}
	if n != s.Neighbors {
		r.Fatalf("%d neighbors of stations, %d in all", n, s.Neighbors)
	}
	for _, f := range r.take() {
		checkFrame(r, f)
	}
	if r.l.dhcp != nil {
		now := r.now.Sub(r.l.start)
		checkPool(r, &r.l.dhcp.pool, now)
	}
}

// FuzzARP compares who is answered with the rules, written down once more.
func FuzzARP(f *testing.F) {
	for _, frame := range [][]byte{
		whoHas(guestA, a4, gateway4), whoHas(guestA, a4, ip("192.0.2.9")), whoHas(guestA, ip("0.0.0.0"), gateway4),
		whoHas(guestA, b4, gateway4), isAt(guestA, a4), whoHas(guestA, gateway4, gateway4),
	} {
		f.Add(frame[HdrLen:], true)
	}
	f.Fuzz(func(t *testing.T, body []byte, toAll bool) {
		r := quiet(t, everything)
		r.delivered(dataFrame(guestB, b4, far4))
		dst := gateway
		if toAll {
			dst = broadcast()
		}
		v := r.in(ethernet(dst, guestA, TypeARP, body))
		want := false
		a := header.ARP(body)
		if len(body) >= header.ARPSize && a.IsValid() && a.Op() == header.ARPRequest && bytes.Equal(a.HardwareAddressSender(), guestA[:]) {
			sender, target := netip.AddrFrom4([4]byte(a.ProtocolAddressSender())), netip.AddrFrom4([4]byte(a.ProtocolAddressTarget()))
			onLink := network("198.18.0.0/24").Contains(sender) && sender != gateway4 && sender != b4 && sender != ip("198.18.0.33")
			want = target == gateway4 && (onLink || sender == ip("0.0.0.0")) || network("192.0.2.0/24").Contains(target) && onLink
		}
		answered := false
		for _, out := range r.sent {
			reply := header.ARP(out[HdrLen:])
			if reply.Op() != header.ARPReply {
				continue // a dispute's question, or a defence
			}
			answered = true
			if !bytes.Equal(reply.ProtocolAddressSender(), a.ProtocolAddressTarget()) || !bytes.Equal(reply.ProtocolAddressTarget(), a.ProtocolAddressSender()) ||
				!bytes.Equal(reply.HardwareAddressSender(), gateway[:]) || !bytes.Equal(out[:6], guestA[:]) {
				t.Fatalf("answered %x", out)
			}
		}
		if answered != want || want && v != Consumed || v == Deliver {
			t.Fatalf("answered %v, verdict %d; want %v", answered, v, want)
		}
		r.checkLAN()
	})
}

// FuzzNDP compares who is answered with the rules, by gVisor's decoder.
func FuzzNDP(f *testing.F) {
	for _, frame := range [][]byte{
		unhex(goldenNS), unhex(goldenDADProbe), unhex(goldenRS),
		solicit(guestA, allA, ip("2001:db8::9")), solicit(guestA, b6, gateway6), advert(guestA, a6, gateway6, naSolicited),
		advert(guestA, a6, allNodes(), naOverride, lla(optTargetLLA, guestA)...),
	} {
		f.Add(frame[54:], frame[22:38], frame[38:54], uint8(255))
	}
	f.Fuzz(func(t *testing.T, message, src, dst []byte, hops uint8) {
		if len(src) != 16 || len(dst) != 16 || len(message) < 4 || len(message) > 2000 {
			return
		}
		r := quiet(t, everything)
		r.delivered(dataFrame(guestB, b6, far6))
		from, to := netip.AddrFrom16([16]byte(src)), netip.AddrFrom16([16]byte(dst))
		mac := gateway
		if to.IsMulticast() {
			mac = groupMAC(to)
		}
		v := r.in(icmpFrame(ip6{mac, guestA, from, to, hops}, message))
		ok, allowed := solicitation(message, from, to, hops)
		answered := false
		for _, out := range r.sent {
			if out[54] != ndpNA || ownV6(netip.AddrFrom16([16]byte(out[62:78]))) && MAC(out[:6]) != guestA && !from.IsUnspecified() {
				continue // a dispute's question, or a defence
			}
			answered = true
			na := header.NDPNeighborAdvert(out[58:])
			if na.TargetAddress().As16() != [16]byte(message[8:24]) || na.SolicitedFlag() == from.IsUnspecified() {
				t.Fatalf("answered %x", out)
			}
		}
		if answered && !ok || allowed && !answered {
			t.Fatalf("answered %v, verdict %d; may be %v, must be %v", answered, v, ok, allowed)
		}
		r.checkLAN()
	})
}

// ownV6 reports whether a is the gateway's own.
func ownV6(a netip.Addr) bool { return a == gateway6 || a == ip("fe80::ff:fe00:1") }

// solicitation reports whether a message may be answered as a neighbor
// solicitation from guest A, and whether it must.
func solicitation(m []byte, from, to netip.Addr, hops uint8) (may, must bool) {
	if len(m) < 24 || m[0] != ndpNS || m[1] != 0 || hops != 255 {
		return false, false
	}
	target := netip.AddrFrom16([16]byte(m[8:24]))
	own := ownV6(target)
	onLink := (network("fd00:18::/64").Contains(from) || network("fe80::/10").Contains(from)) &&
		!ownV6(from) && from != b6
	may = own && (onLink || from.IsUnspecified()) || network("2001:db8::/32").Contains(target) && onLink
	must = may && len(m) == 24 && (!from.IsUnspecified() || to == solicitedNode(target))
	if it, err := header.NDPOptions(m[24:]).Iter(true); err == nil {
		for {
			opt, done, err := it.Next()
			if done || err != nil {
				break
			}
			if sll, ok := opt.(header.NDPSourceLinkLayerAddressOption); ok && (string(sll.EthernetAddress()) != string(guestA[:]) || from.IsUnspecified()) {
				return false, false
			}
		}
	}
	return may, must
}

// FuzzDHCP gives an arbitrary message to a server that has a few clients, and takes
// its answer apart.
func FuzzDHCP(f *testing.F) {
	add := func(m message) {
		m.mac = guestA
		f.Add(m.frame()[42:], uint16(0))
		f.Add(m.frame()[42:], uint16(4000))
	}
	f.Add(unhex(goldenDiscover)[42:], uint16(1))
	add(message{kind: dhcpv4.MessageTypeDiscover, wish: ip("198.18.0.102"), broadcast: true, id: "abc"})
	add(message{kind: dhcpv4.MessageTypeRequest, wish: ip("198.18.0.102"), server: gateway4})
	add(message{kind: dhcpv4.MessageTypeRequest, ciaddr: ip("198.18.0.100"), wants: []dhcpv4.OptionCode{dhcpv4.OptionClasslessStaticRoute}})
	add(message{kind: dhcpv4.MessageTypeRequest, wish: far4})
	add(message{kind: dhcpv4.MessageTypeDecline, wish: ip("198.18.0.100"), server: gateway4})
	add(message{kind: dhcpv4.MessageTypeRelease, ciaddr: ip("198.18.0.100"), server: gateway4})
	add(message{kind: dhcpv4.MessageTypeInform, ciaddr: a4})
	f.Fuzz(func(t *testing.T, payload []byte, wait uint16) {
		if len(payload) > 2000 {
			return
		}
		r := quiet(t, everything)
		for i, mac := range []MAC{guestA, guestB} {
			a := ip("198.18.0.100")
			for range i {
				a = a.Next()
			}
			r.want(r.dhcp(message{mac: mac, kind: dhcpv4.MessageTypeRequest, wish: a}), dhcpv4.MessageTypeAck, a.String())
		}
		r.advance(time.Duration(wait) * time.Second)
		r.take()
		theirs := wait < 3600 // B's lease has not run out
		before := r.l.Stats().Events
		r.in(udpFrame(broadcast(), guestA, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), payload))
		sent := r.sent
		r.checkLAN()
		if len(sent) > 1 {
			t.Fatalf("%d answers", len(sent))
		}
		if len(sent) == 1 {
			checkAnswer(t, sent[0], payload, theirs)
		}
		after := r.l.Stats().Events
		if n := after[EventDHCPOffer] + after[EventDHCPAck] + after[EventDHCPNak] - before[EventDHCPOffer] - before[EventDHCPAck] - before[EventDHCPNak]; n != uint64(len(sent)) {
			t.Fatalf("counted %d answers of %d", n, len(sent))
		}
	})
}

// checkAnswer reads a server's message without the library.
func checkAnswer(t *testing.T, f, payload []byte, theirs bool) {
	t.Helper()
	b := f[42:]
	if len(b) < 300 || len(b) > 548 || b[0] != 2 || !bytes.Equal(b[4:8], payload[4:8]) || MAC(b[28:34]) != guestA || !bytes.Equal(b[236:240], []byte{99, 130, 83, 99}) {
		t.Fatalf("answered %x", f)
	}
	seen := map[byte][]byte{}
	for o := b[240:]; o[0] != 255; o = o[2+int(o[1]):] {
		if seen[o[0]] != nil {
			t.Fatalf("option %d twice", o[0])
		}
		seen[o[0]] = o[2 : 2+int(o[1])]
	}
	yiaddr := netip.AddrFrom4([4]byte(b[16:20]))
	inPool := !yiaddr.Less(ip("198.18.0.100")) && !ip("198.18.0.105").Less(yiaddr)
	kind := seen[53][0]
	leased := seen[51] != nil
	switch {
	case !bytes.Equal(seen[54], gateway4.AsSlice()):
		t.Fatal("no server identifier")
	case kind == 6 && (leased || !yiaddr.IsUnspecified()):
		t.Fatal("a NAK with an address")
	case kind == 2 && !leased, leased && !inPool, !leased && !yiaddr.IsUnspecified():
		t.Fatalf("answer %d with %v, leased %v", kind, yiaddr, leased)
	case leased && theirs && yiaddr == ip("198.18.0.101"):
		t.Fatal("another's lease is given away")
	}
}

// FuzzInput gives a sequence of arbitrary frames, each with a length before it, and
// some time between. The first bytes of a frame are replaced often enough to get it
// past the Ethernet header.
func FuzzInput(f *testing.F) {
	seed := func(frames ...[]byte) {
		var script []byte
		for _, x := range frames {
			script = binary.BigEndian.AppendUint16(append(script, 0), uint16(len(x)))
			script = append(script, x...)
		}
		f.Add(script, uint8(0))
		f.Add(script, uint8(3))
	}
	seed(unhex(goldenARPRequest), unhex(goldenNS), unhex(goldenRS), unhex(goldenDiscover))
	seed(dataFrame(guestA, a4, far4), dataFrame(guestB, a4, far4), isAt(guestA, a4), dataFrame(guestA, a6, far6))
	seed(dataFrame(guestB, a6, far6), solicit(guestA, a6, gateway6), advert(guestB, a6, gateway6, naSolicited))
	seed(behindOptions(unhex(goldenNS), 60), fragment(unhex(goldenDiscover)))
	f.Fuzz(func(t *testing.T, script []byte, step uint8) {
		r := quiet(t, everything)
		for len(script) > 3 {
			how, n := script[0], int(binary.BigEndian.Uint16(script[1:]))
			script = script[3:]
			frame := bytes.Clone(script[:min(n, len(script))])
			script = script[len(frame):]
			if how&1 != 0 && len(frame) >= HdrLen {
				copy(frame, gateway[:])
				copy(frame[6:], guestA[:])
			}
			before := r.l.Stats().Drops
			v := r.l.Input(Frame{Data: frame, Len: len(frame) + int(how>>2&1), Verified: how&2 != 0}, r.now, r.send)
			r.checkVerdict(v, frame, before)
			r.checkLAN()
			if how&8 != 0 {
				r.out(netip.AddrFrom4([4]byte{198, 18, 0, how}))
			}
			r.advance(time.Duration(step) * time.Second)
			r.checkLAN()
		}
	})
}

// checkVerdict proves that a frame passes to the stack only from the station that
// its source address is known at, and that each drop is counted once.
func (r *rig) checkVerdict(v Verdict, frame []byte, before [NumDropReasons]uint64) {
	r.Helper()
	after := r.l.Stats().Drops
	var drops uint64
	for i := range DropOffLink {
		drops += after[i] - before[i]
	}
	if drops > 1 || (drops == 1) != (v == Dropped) {
		r.Fatalf("verdict %d, %d drops counted", v, drops)
	}
	if v != Deliver {
		return
	}
	src := netip.AddrFrom4([4]byte(frame[26:30]))
	if frame[14]>>4 == 6 {
		src = netip.AddrFrom16([16]byte(frame[22:38]))
	}
	at, ok := r.l.Lookup(src)
	if MAC(frame[:6]) != gateway || !ok || at != MAC(frame[6:12]) {
		r.Fatalf("delivered %x, whose source is at %v", frame, at)
	}
}
