package lan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// dhcpOptions serves 198.18.0.100 to .109.
func dhcpOptions(o *Options) {
	o.DHCP = DHCPOptions{On: true, First: ip("198.18.0.100"), Last: ip("198.18.0.109")}
}

// message is what a DHCP client sends.
type message struct {
	mac       MAC
	from      netip.Addr // of the packet; zero is 0.0.0.0
	unicast   bool       // to the gateway instead of everybody
	kind      dhcpv4.MessageType
	ciaddr    netip.Addr
	wish      netip.Addr
	server    netip.Addr
	id        string
	broadcast bool
	wants     []dhcpv4.OptionCode
	change    func(*dhcpv4.DHCPv4)
}

func (m *message) frame() []byte {
	d := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: m.mac[:], TransactionID: [4]byte{1, 2, 3, 4}, Options: dhcpv4.Options{}}
	if m.kind != 0 {
		d.UpdateOption(dhcpv4.OptMessageType(m.kind))
	}
	if m.ciaddr.IsValid() {
		d.ClientIPAddr = m.ciaddr.AsSlice()
	}
	if m.wish.IsValid() {
		d.UpdateOption(dhcpv4.OptRequestedIPAddress(m.wish.AsSlice()))
	}
	if m.server.IsValid() {
		d.UpdateOption(dhcpv4.OptServerIdentifier(m.server.AsSlice()))
	}
	if m.id != "" {
		d.UpdateOption(dhcpv4.OptClientIdentifier([]byte(m.id)))
	}
	if m.wants != nil {
		d.UpdateOption(dhcpv4.OptParameterRequestList(m.wants...))
	}
	if m.broadcast {
		d.SetBroadcast()
	}
	if m.change != nil {
		m.change(d)
	}
	from, to, mac := netip.IPv4Unspecified(), allHosts(), broadcast()
	if m.from.IsValid() {
		from = m.from
	}
	if m.unicast {
		to, mac = gateway4, gateway
	}
	return udpFrame(mac, m.mac, netip.AddrPortFrom(from, 68), netip.AddrPortFrom(to, 67), d.ToBytes())
}

// answer is a server's message with where it went.
type answer struct {
	*dhcpv4.DHCPv4
	mac MAC
	to  netip.Addr
}

// dhcp sends a message and returns the answer, nil if there is none.
func (r *rig) dhcp(m message) *answer {
	r.Helper()
	r.in(m.frame())
	for _, f := range r.take() {
		checkFrame(r, f)
		if f[13] != 0 {
			continue // ARP
		}
		d, err := dhcpv4.FromBytes(f[42:])
		if err != nil {
			r.Fatalf("answered %x: %v", f, err)
		}
		if d.TransactionID != [4]byte{1, 2, 3, 4} || !bytes.Equal(d.ClientHWAddr, m.mac[:]) || d.ServerIdentifier().String() != gateway4.String() {
			r.Fatalf("answered %v", d)
		}
		return &answer{d, MAC(f[:6]), netip.AddrFrom4([4]byte(f[30:34]))}
	}
	return nil
}

// want checks an answer's type and address.
func (r *rig) want(a *answer, kind dhcpv4.MessageType, addr string) {
	r.Helper()
	if a == nil || a.MessageType() != kind || a.YourIPAddr.String() != addr {
		r.Fatalf("answered %v, want %v of %s; %s", a, kind, addr, r.drops())
	}
}

// TestDHCPLife leads a client through INIT, SELECTING, RENEWING, REBINDING and
// release.
func TestDHCPLife(t *testing.T) {
	r := quiet(t, dhcpOptions)
	addr := ip("198.18.0.105")
	m := message{mac: guestA, kind: dhcpv4.MessageTypeDiscover, wish: addr}
	r.want(r.dhcp(m), dhcpv4.MessageTypeOffer, addr.String())

	m = message{mac: guestA, kind: dhcpv4.MessageTypeRequest, wish: addr, server: gateway4}
	a := r.dhcp(m)
	r.want(a, dhcpv4.MessageTypeAck, addr.String())
	if a.IPAddressLeaseTime(0) != time.Hour || a.IPAddressRenewalTime(0) != 30*time.Minute || a.IPAddressRebindingTime(0) != 3150*time.Second {
		t.Errorf("times of %s", a.Summary())
	}
	if s := r.l.Stats(); s.Leases != 1 || s.Offers != 0 {
		t.Errorf("%+v", s)
	}

	r.advance(30 * time.Minute) // T1: by unicast
	a = r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRequest, ciaddr: addr, from: addr, unicast: true})
	r.want(a, dhcpv4.MessageTypeAck, addr.String())
	if a.to != addr || a.mac != guestA || a.ClientIPAddr.String() != addr.String() {
		t.Errorf("renewed to %v at %v", a.to, a.mac)
	}

	r.advance(3150 * time.Second) // T2: by broadcast
	r.want(r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRequest, ciaddr: addr, from: addr}), dhcpv4.MessageTypeAck, addr.String())

	r.advance(59 * time.Minute)
	if s := r.l.Stats(); s.Leases != 1 {
		t.Errorf("%d leases before it ran out", s.Leases)
	}
	if r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRelease, ciaddr: addr, from: addr, server: gateway4, unicast: true}) != nil {
		t.Error("a release was answered")
	}
	if s := r.l.Stats(); s.Leases != 0 {
		t.Errorf("%d leases after the release", s.Leases)
	}
	r.event(EventDHCPRelease, 1)
	r.want(r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeDiscover}), dhcpv4.MessageTypeOffer, addr.String())
}

// TestDHCPRuns out without a word of the client.
func TestDHCPRunsOut(t *testing.T) {
	r := quiet(t, dhcpOptions)
	r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRequest, wish: ip("198.18.0.105")})
	r.dhcp(message{mac: guestB, kind: dhcpv4.MessageTypeDiscover})
	if s := r.l.Stats(); s.Leases != 1 || s.Offers != 1 {
		t.Errorf("%+v", s)
	}
	r.advance(offerTime)
	if s := r.l.Stats(); s.Offers != 0 {
		t.Errorf("%d offers stand after %v", s.Offers, offerTime)
	}
	r.advance(time.Hour)
	if s := r.l.Stats(); s.Leases != 0 {
		t.Errorf("%d leases after their time", s.Leases)
	}
}

// TestDHCPTo has a row for each line of RFC 2131, section 4.1, about where answers
// go.
func TestDHCPTo(t *testing.T) {
	addr := ip("198.18.0.105")
	for _, c := range []struct {
		name string
		m    message
		kind dhcpv4.MessageType
		to   netip.Addr
		mac  MAC
	}{
		{"unicast to the new address", message{kind: dhcpv4.MessageTypeDiscover, wish: addr}, dhcpv4.MessageTypeOffer, addr, guestA},
		{"broadcast flag", message{kind: dhcpv4.MessageTypeDiscover, wish: addr, broadcast: true}, dhcpv4.MessageTypeOffer, allHosts(), broadcast()},
		{"ciaddr before the flag", message{kind: dhcpv4.MessageTypeRequest, ciaddr: addr, broadcast: true}, dhcpv4.MessageTypeAck, addr, guestA},
		{"inform", message{kind: dhcpv4.MessageTypeInform, ciaddr: a4}, dhcpv4.MessageTypeAck, a4, guestA},
		{"nak to all", message{kind: dhcpv4.MessageTypeRequest, ciaddr: far4}, dhcpv4.MessageTypeNak, allHosts(), broadcast()},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, dhcpOptions)
			c.m.mac = guestA
			a := r.dhcp(c.m)
			if a == nil || a.MessageType() != c.kind || a.to != c.to || a.mac != c.mac || a.IsBroadcast() != c.m.broadcast {
				t.Fatalf("answered %v to %v at %v", a, a.to, a.mac)
			}
		})
	}
}

// TestDHCPRequests has a row for each state of section 4.3.2.
func TestDHCPRequests(t *testing.T) {
	const req, nak, ack = dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeNak, dhcpv4.MessageTypeAck
	addr, theirs, other := ip("198.18.0.105"), ip("198.18.0.106"), ip("198.18.0.2")
	for _, c := range []struct {
		name string
		m    message
		want dhcpv4.MessageType // 0 is silence
		drop DropReason         // valid iff silence
	}{
		{"selecting us", message{server: gateway4, wish: addr}, ack, 0},
		{"selecting another server", message{server: other, wish: addr}, 0, DropDHCPServer},
		{"selecting nothing", message{server: gateway4}, 0, DropDHCP},
		{"selecting what is another's", message{server: gateway4, wish: theirs}, nak, 0},
		{"selecting what we do not have", message{server: gateway4, wish: ip("198.18.0.50")}, nak, 0},
		{"rebooting with a free address", message{wish: addr}, ack, 0},
		{"rebooting on another network", message{wish: far4}, nak, 0},
		{"rebooting with another's", message{wish: theirs}, nak, 0},
		{"rebooting with another server's", message{wish: ip("198.18.0.50")}, 0, DropDHCPServer},
		{"renewing", message{ciaddr: addr, from: addr, unicast: true}, ack, 0},
		{"rebinding", message{ciaddr: addr, from: addr}, ack, 0},
		{"rebinding on another network", message{ciaddr: far4, from: far4}, nak, 0},
		{"renewing another's", message{ciaddr: theirs}, nak, 0},
		{"renewing from another's", message{ciaddr: theirs, from: theirs, unicast: true}, 0, DropSpoofed},
		{"nothing at all", message{}, 0, DropDHCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, dhcpOptions)
			r.want(r.dhcp(message{mac: guestB, kind: req, wish: theirs}), ack, theirs.String())
			c.m.mac, c.m.kind = guestA, req
			a := r.dhcp(c.m)
			switch {
			case c.want == 0 && a != nil || c.want != 0 && (a == nil || a.MessageType() != c.want):
				t.Fatalf("answered %v, want %v; %s", a, c.want, r.drops())
			case c.want == nak && (a.YourIPAddr.String() != "0.0.0.0" || len(a.Options) > 3 || a.Options.Has(dhcpv4.OptionIPAddressLeaseTime)):
				t.Errorf("a NAK says %s", a.Summary())
			case c.want == 0 && r.l.Stats().Drops[c.drop] != 1:
				t.Errorf("not counted as %s; %s", c.drop, r.drops())
			}
		})
	}
}

// TestDHCPOtherServer takes back the offer of a client that chose another server.
func TestDHCPOtherServer(t *testing.T) {
	r := quiet(t, dhcpOptions)
	r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeDiscover})
	r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRequest, server: ip("198.18.0.2"), wish: ip("198.18.0.50")})
	if s := r.l.Stats(); s.Offers != 0 {
		t.Errorf("%d offers stand", s.Offers)
	}
}

// TestDHCPDecline leaves an address alone that a client found taken.
func TestDHCPDecline(t *testing.T) {
	r := quiet(t, func(o *Options) { dhcpOptions(o); o.DHCP.Last = o.DHCP.First })
	addr := ip("198.18.0.100")
	r.want(r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeRequest, wish: addr}), dhcpv4.MessageTypeAck, addr.String())
	r.dhcp(message{mac: guestB, kind: dhcpv4.MessageTypeDecline, wish: addr, server: gateway4})
	if s := r.l.Stats(); s.Leases != 1 || s.Drops[DropDHCP] != 1 {
		t.Errorf("a stranger declined: %+v", s)
	}
	r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeDecline, wish: addr, server: gateway4})
	r.event(EventDHCPDecline, 2)
	for _, mac := range []MAC{guestA, guestB} {
		if a := r.dhcp(message{mac: mac, kind: dhcpv4.MessageTypeDiscover}); a != nil {
			t.Errorf("offered %v", a)
		}
	}
	if s := r.l.Stats(); s.Drops[DropDHCPFull] != 2 {
		t.Errorf("%+v", s)
	}
	r.advance(declineTime)
	r.want(r.dhcp(message{mac: guestB, kind: dhcpv4.MessageTypeDiscover}), dhcpv4.MessageTypeOffer, addr.String())
}

// TestDHCPRefused has a row for each way a message is refused.
func TestDHCPRefused(t *testing.T) {
	discover := func(change func(*dhcpv4.DHCPv4)) []byte {
		m := message{mac: guestA, kind: dhcpv4.MessageTypeDiscover, change: change}
		return m.frame()
	}
	good := discover(nil)
	raw := func(payload []byte) []byte {
		return udpFrame(broadcast(), guestA, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), payload)
	}
	cut := func(n int) []byte { return raw(good[42:][:n]) }
	edit := func(at int, b ...byte) []byte {
		p := bytes.Clone(good[42:])
		copy(p[at:], b)
		return raw(p)
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  DropReason
	}{
		{"empty", cut(0), DropDHCP},
		{"cut", cut(239), DropDHCP},
		{"no end", cut(243), DropDHCP},
		{"too long", raw(append(bytes.Clone(good[42:]), make([]byte, 1400)...)), DropDHCP},
		{"reply", edit(0, 2), DropDHCP},
		{"token ring", edit(1, 6), DropDHCP},
		{"address length", edit(2, 16), DropDHCP},
		{"relayed", edit(24, 10, 0, 0, 1), DropDHCPRelay},
		{"for another", edit(28, guestB[:]...), DropDHCPClient},
		{"cookie", edit(236, 1, 2, 3, 4), DropDHCP},
		{"option cut", edit(240, 53, 255), DropDHCP},
		{"BOOTP", discover(func(d *dhcpv4.DHCPv4) { d.Options = dhcpv4.Options{} }), DropDHCP},
		{"server's message", discover(func(d *dhcpv4.DHCPv4) { d.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer)) }), DropDHCP},
		{"long identifier", discover(func(d *dhcpv4.DHCPv4) { d.UpdateOption(dhcpv4.OptClientIdentifier(make([]byte, 129))) }), DropDHCP},
		{"checksum", flip(bytes.Clone(good), 300), DropChecksum},
		{"IP checksum", flip(bytes.Clone(good), 24), DropDHCP},
		{"truncated", good[:len(good)-1], DropDHCP},
		{"fragment", fragment(good), DropDHCP},
		{"inform of another network", (&message{mac: guestA, kind: dhcpv4.MessageTypeInform, ciaddr: far4}).frame(), DropDHCP},
		{"release of nothing", (&message{mac: guestA, kind: dhcpv4.MessageTypeRelease, ciaddr: a4, server: gateway4}).frame(), DropDHCP},
		{"release to another", (&message{mac: guestA, kind: dhcpv4.MessageTypeRelease, ciaddr: a4, server: b4}).frame(), DropDHCPServer},
		{"server among guests", udpFrame(broadcast(), guestA, netip.AddrPortFrom(a4, 67), netip.MustParseAddrPort("255.255.255.255:68"), nil), DropRogueDHCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quiet(t, dhcpOptions)
			r.dropped(c.frame, c.want)
			r.none()
		})
	}
	r := quiet(t, dhcpOptions)
	if v := r.l.Input(Frame{Data: flip(bytes.Clone(good), 300), Verified: true}, r.now, r.send); v != Consumed {
		t.Errorf("verdict %d on a partial checksum", v)
	}
	r = quiet(t, nil) // off: nobody's, and data
	r.dropped(good, DropMulticast)
	r.delivered((&message{mac: guestA, from: a4, unicast: true, kind: dhcpv4.MessageTypeDiscover}).frame())
}

// fragment makes a frame the first fragment of something longer.
func fragment(f []byte) []byte {
	f = bytes.Clone(f)
	f[20] = 0x20
	f[24], f[25] = 0, 0
	binary.BigEndian.PutUint16(f[24:], ^naiveSum(f[14:34]))
	return f
}

// TestDHCPIdentity tells clients of one station apart by identifier, and never gives
// one the lease of another station by it.
func TestDHCPIdentity(t *testing.T) {
	r := quiet(t, dhcpOptions)
	seen := map[string]bool{}
	for _, c := range []message{{mac: guestA}, {mac: guestA, id: "x"}, {mac: guestA, id: "y"}, {mac: guestB, id: "x"}, {mac: guestB}} {
		c.kind = dhcpv4.MessageTypeDiscover
		a := r.dhcp(c)
		if a == nil || seen[a.YourIPAddr.String()] || string(a.Options.Get(dhcpv4.OptionClientIdentifier)) != c.id {
			t.Fatalf("%v %q was answered %v", c.mac, c.id, a)
		}
		seen[a.YourIPAddr.String()] = true
		c.kind, c.wish, c.server = dhcpv4.MessageTypeRequest, netip.MustParseAddr(a.YourIPAddr.String()), gateway4
		r.want(r.dhcp(c), dhcpv4.MessageTypeAck, a.YourIPAddr.String())
	}
	if n := r.l.Stats().Leases; n != 5 {
		t.Errorf("%d leases", n)
	}
}

// TestDHCPAvoids does not offer what another guest uses without asking.
func TestDHCPAvoids(t *testing.T) {
	r := quiet(t, func(o *Options) { dhcpOptions(o); o.DHCP.Last = ip("198.18.0.101") })
	r.delivered(dataFrame(guestB, ip("198.18.0.100"), far4))
	r.want(r.dhcp(message{mac: guestA, kind: dhcpv4.MessageTypeDiscover, wish: ip("198.18.0.100")}), dhcpv4.MessageTypeOffer, "198.18.0.101")
}

// TestDHCPParameters has what is told, and what only if asked for.
func TestDHCPParameters(t *testing.T) {
	r := quiet(t, func(o *Options) {
		dhcpOptions(o)
		o.DHCP.DNS = []netip.Addr{ip("198.18.0.53"), ip("192.0.2.53")}
		o.DHCP.Routes = []Route{{Prefix: network("203.0.113.0/24")}}
	})
	for _, c := range []struct {
		m      message
		lease  bool
		routes bool
	}{
		{message{kind: dhcpv4.MessageTypeDiscover}, true, true}, // no list: all (RFC 2131, 3.5)
		{message{kind: dhcpv4.MessageTypeDiscover, wants: []dhcpv4.OptionCode{dhcpv4.OptionRouter}}, true, false},
		{message{kind: dhcpv4.MessageTypeDiscover, wants: []dhcpv4.OptionCode{dhcpv4.OptionClasslessStaticRoute}}, true, true},
		{message{kind: dhcpv4.MessageTypeInform, ciaddr: a4}, false, true},
	} {
		c.m.mac = guestA
		a := r.dhcp(c.m)
		if a == nil {
			t.Fatal(r.drops())
		}
		mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, a.Options)
		if err != nil || mtu != 1400 || !a.Router()[0].Equal(gateway4.AsSlice()) || len(a.DNS()) != 2 || a.SubnetMask().String() != "ffffff00" {
			t.Errorf("told %s", a.Summary())
		}
		if got := a.Options.Has(dhcpv4.OptionIPAddressLeaseTime); got != c.lease {
			t.Errorf("%v: lease time %v", c.m.kind, got)
		}
		routes := a.ClasslessStaticRoute()
		if (len(routes) == 2) != c.routes {
			t.Errorf("%v: routes %v", c.m.wants, routes)
		}
		if c.routes && (routes[0].String() != "route to 0.0.0.0/0 via 198.18.0.1" || routes[1].String() != "route to 203.0.113.0/24 via 198.18.0.1") {
			t.Errorf("routes %v", routes)
		}
	}
}

// TestDHCPFits keeps the longest answer below what every client takes.
func TestDHCPFits(t *testing.T) {
	r := quiet(t, func(o *Options) {
		dhcpOptions(o)
		for range maxDNS {
			o.DHCP.DNS = append(o.DHCP.DNS, ip("192.0.2.53"))
		}
		for range maxRoutes {
			o.DHCP.Routes = append(o.DHCP.Routes, Route{network("203.0.113.1/32"), gateway4})
		}
	})
	r.consumed((&message{mac: guestA, kind: dhcpv4.MessageTypeDiscover, id: string(make([]byte, maxClientID))}).frame())
	if n := len(r.one()) - HdrLen; n > 576 {
		t.Errorf("the longest answer has %d bytes of IP, a client need take 576 (RFC 2131, section 2)", n)
	}
}
