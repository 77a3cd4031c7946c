package lan

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/tungate/tungate/offload"
)

// DHCP over UDP (RFC 2131, sections 2 and 4.1).
const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	dhcpMinLen  = 240  // up to and with the cookie
	dhcpMaxLen  = 1472 // of a client: one unfragmented Ethernet packet
	maxClientID = 128  // a DUID's most, which is the longest in use (RFC 8415, section 11.1)

	// T1 and T2 are these shares of the lease time (section 4.4.5).
	renewShare, rebindShare = 0.5, 0.875

	ipv4HdrLen = 20
	udpHdrLen  = 8
	serverTTL  = 64
)

// dhcpServer answers DHCP clients out of a pool.
type dhcpServer struct {
	addr   netip.Addr
	prefix netip.Prefix
	pool   pool
}

func newDHCPServer(l *LAN) *dhcpServer {
	server, _ := l.options.dhcpServer()
	d := &dhcpServer{addr: server.Addr(), prefix: server}
	d.pool.init(&l.options.DHCP, server, l.own, func(a netip.Addr, by station) bool {
		n := l.neighbors.find(keyOf(a))
		return n != nil && n.station() != by
	})
	return d
}

// request is a client's message that decoded.
type request struct {
	*dhcpv4.DHCPv4
	client client
	from   netip.Addr // its packet's source
	ciaddr uint32     // 0 if it has none
	wish   uint32     // option 50, 0 if it has none
	server netip.Addr // option 54; not valid if it has none
}

// decode reads r from a frame, or says why not. The library sees nothing before
// lengths and fixed fields are known to be good.
func (r *request) decode(f Frame, src station) (DropReason, bool) {
	ip := f.Data[HdrLen:]
	var p offload.Packet
	if offload.Parse(&p, ip, len(ip)) != offload.OK || p.Fragment || p.Proto != offload.ProtoUDP {
		return DropDHCP, false
	}
	if !f.Verified && !offload.VerifyTransport(&p, [][]byte{ip}) {
		return DropChecksum, false
	}
	b := ip[p.L3Len+p.L4Len:][:p.PayloadLen]
	switch {
	case !isBootRequest(b):
		return DropDHCP, false
	case [4]byte(b[24:28]) != [4]byte{}: // giaddr
		return DropDHCPRelay, false
	case stationOf(b[28:]) != src:
		return DropDHCPClient, false
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return DropDHCP, false
	}
	id := m.Options.Get(dhcpv4.OptionClientIdentifier)
	if len(id) > maxClientID {
		return DropDHCP, false
	}
	*r = request{
		DHCPv4: m,
		client: client{station: src, id: string(id)},
		from:   p.Src,
		ciaddr: binary.BigEndian.Uint32(b[12:]),
	}
	r.addresses()
	return 0, true
}

// addresses reads the two options that hold one.
func (r *request) addresses() {
	if v := r.Options.Get(dhcpv4.OptionRequestedIPAddress); len(v) == 4 {
		r.wish = binary.BigEndian.Uint32(v)
	}
	if v := r.Options.Get(dhcpv4.OptionServerIdentifier); len(v) == 4 {
		r.server = netip.AddrFrom4([4]byte(v))
	}
}

// isBootRequest checks a message's length, operation, and hardware type and length.
func isBootRequest(b []byte) bool {
	const request, ethernet, hlen = 1, 1, 6
	return len(b) >= dhcpMinLen && len(b) <= dhcpMaxLen && b[0] == request && b[1] == ethernet && b[2] == hlen
}

// dhcpInput serves a message to port 67.
func (l *LAN) dhcpInput(t *turn, f Frame, src station) (DropReason, bool) {
	var r request
	if reason, ok := r.decode(f, src); !ok {
		return reason, false
	}
	if l.isOnLink(r.from) {
		if reason, ok := l.claim(t, keyOf(r.from), src, true); !ok {
			return reason, false
		}
	}
	switch r.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		l.count(EventDHCPDiscover, 1)
		return l.dhcpDiscover(t, &r)
	case dhcpv4.MessageTypeRequest:
		l.count(EventDHCPRequest, 1)
		return l.dhcpRequest(t, &r)
	case dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease:
		return l.dhcpGiveBack(t, &r)
	case dhcpv4.MessageTypeInform:
		l.count(EventDHCPInform, 1)
		return l.dhcpInform(t, &r)
	default: // a server's, or none
		return DropDHCP, false
	}
}

// dhcpDiscover offers an address (section 4.3.1).
func (l *LAN) dhcpDiscover(t *turn, r *request) (DropReason, bool) {
	a, ok := l.dhcp.pool.offer(r.client, r.wish, t.now)
	if !ok {
		return DropDHCPFull, false
	}
	l.dhcpReply(t, r, dhcpv4.MessageTypeOffer, a)
	return 0, true
}

// dhcpRequest takes one of the three kinds of requests apart, by the table of
// section 4.3.2.
func (l *LAN) dhcpRequest(t *turn, r *request) (DropReason, bool) {
	selecting := r.server.IsValid()
	a := r.wish
	if a == 0 {
		a = r.ciaddr // renewing by unicast, or rebinding by broadcast
	}
	switch {
	case selecting && r.server != l.dhcp.addr:
		l.dhcp.pool.withdraw(r.client)
		return DropDHCPServer, false
	case a == 0:
		return DropDHCP, false
	}
	switch l.dhcp.pool.take(r.client, a, selecting, t.now) {
	case granted:
		l.dhcpReply(t, r, dhcpv4.MessageTypeAck, a)
	case refused:
		l.dhcpReply(t, r, dhcpv4.MessageTypeNak, 0)
	case unknown:
		return DropDHCPServer, false
	}
	return 0, true
}

// dhcpGiveBack serves DECLINE and RELEASE (sections 4.3.3 and 4.3.4).
func (l *LAN) dhcpGiveBack(t *turn, r *request) (DropReason, bool) {
	if r.server != l.dhcp.addr {
		return DropDHCPServer, false
	}
	if r.MessageType() == dhcpv4.MessageTypeDecline {
		l.count(EventDHCPDecline, 1)
		if !l.dhcp.pool.decline(r.client, r.wish, t.now) {
			return DropDHCP, false
		}
		return 0, true
	}
	l.count(EventDHCPRelease, 1)
	if !l.dhcp.pool.release(r.client, r.ciaddr, t.now) {
		return DropDHCP, false
	}
	return 0, true
}

// dhcpInform tells a client that has an address the rest (section 4.3.5).
func (l *LAN) dhcpInform(t *turn, r *request) (DropReason, bool) {
	if !l.dhcp.prefix.Contains(addrOf(r.ciaddr)) {
		return DropDHCP, false
	}
	l.dhcpReply(t, r, dhcpv4.MessageTypeAck, 0)
	return 0, true
}

// dhcpReply answers r with address a, 0 for none: to an inform, or in a NAK.
func (l *LAN) dhcpReply(t *turn, r *request, kind dhcpv4.MessageType, a uint32) {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        iana.HWTypeEthernet,
		TransactionID: r.TransactionID,
		Flags:         r.Flags,
		YourIPAddr:    addrOf(a).AsSlice(),
		ClientHWAddr:  r.ClientHWAddr,
		Options:       dhcpv4.Options{},
	}
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	m.UpdateOption(dhcpv4.OptServerIdentifier(l.dhcp.addr.AsSlice()))
	if r.client.id != "" { // RFC 6842
		m.UpdateOption(dhcpv4.OptClientIdentifier([]byte(r.client.id)))
	}
	event := EventDHCPNak
	switch kind {
	case dhcpv4.MessageTypeOffer:
		event = EventDHCPOffer
	case dhcpv4.MessageTypeAck:
		event = EventDHCPAck
		m.ClientIPAddr = r.ClientIPAddr
	default:
	}
	if event != EventDHCPNak {
		l.dhcpParameters(m, r, a != 0)
	}
	ip, mac := r.returnAddress(event == EventDHCPNak, addrOf(a))
	t.reply(l.dhcpFrame(m.ToBytes(), ip, mac))
	l.count(event, 1)
}

// returnAddress is where the answer goes (section 4.1).
func (r *request) returnAddress(nak bool, a netip.Addr) (netip.Addr, MAC) {
	mac := r.client.station.mac()
	switch {
	case nak:
		return allHosts(), broadcast()
	case r.ciaddr != 0:
		return addrOf(r.ciaddr), mac
	case r.IsBroadcast():
		return allHosts(), broadcast()
	}
	return a, mac
}

// dhcpParameters adds what a guest needs to know (RFC 2132); leased says that it
// gets an address, too.
func (l *LAN) dhcpParameters(m *dhcpv4.DHCPv4, r *request, leased bool) {
	o := &l.options.DHCP
	if leased {
		m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(o.LeaseTime))
		m.UpdateOption(dhcpv4.OptRenewTimeValue(share(o.LeaseTime, renewShare)))
		m.UpdateOption(dhcpv4.OptRebindingTimeValue(share(o.LeaseTime, rebindShare)))
	}
	m.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(l.dhcp.prefix.Bits(), 32)))
	m.UpdateOption(dhcpv4.OptRouter(l.dhcp.addr.AsSlice()))
	mtu := binary.BigEndian.AppendUint16(nil, uint16(l.options.MTU)) //nolint:gosec // Validate bounds it
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, mtu))
	if len(o.DNS) > 0 {
		servers := make([]net.IP, len(o.DNS))
		for i, a := range o.DNS {
			servers[i] = a.AsSlice()
		}
		m.UpdateOption(dhcpv4.OptDNS(servers...))
	}
	if len(o.Routes) > 0 && r.IsOptionRequested(dhcpv4.OptionClasslessStaticRoute) {
		m.UpdateOption(dhcpv4.OptClasslessStaticRoute(l.dhcpRoutes()...))
	}
}

func share(d time.Duration, part float64) time.Duration { return time.Duration(float64(d) * part) }

// dhcpRoutes lists the routes and the default route, which a client that gets
// this option takes from nowhere else (RFC 3442).
func (l *LAN) dhcpRoutes() []*dhcpv4.Route {
	all := append([]Route{{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}}, l.options.DHCP.Routes...)
	routes := make([]*dhcpv4.Route, len(all))
	for i, r := range all {
		via := r.Via
		if !via.IsValid() {
			via = l.dhcp.addr
		}
		dest := &net.IPNet{IP: r.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(r.Prefix.Bits(), 32)}
		routes[i] = &dhcpv4.Route{Dest: dest, Router: via.AsSlice()}
	}
	return routes
}

// dhcpFrame puts a message into UDP, IPv4 and Ethernet.
func (l *LAN) dhcpFrame(message []byte, to netip.Addr, at MAC) []byte {
	udpLen := udpHdrLen + len(message)
	frame, ip := newFrame(Header{Dst: at, Src: l.mac, Type: TypeIPv4}, ipv4HdrLen+udpLen)
	ip[0] = 4<<4 | ipv4HdrLen/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip))) //nolint:gosec // a message is below 1000 bytes
	ip[6] = 0x40                                        // DF
	ip[8] = serverTTL
	ip[9] = offload.ProtoUDP
	copy(ip[12:], l.dhcp.addr.AsSlice())
	copy(ip[16:], to.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^offload.Sum(ip[:ipv4HdrLen], 0))
	udp := ip[ipv4HdrLen:]
	binary.BigEndian.PutUint16(udp, dhcpServerPort)
	binary.BigEndian.PutUint16(udp[2:], dhcpClientPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen)) //nolint:gosec // as above
	copy(udp[udpHdrLen:], message)
	sum := ^offload.Sum(udp, offload.PseudoSum(l.dhcp.addr, to, offload.ProtoUDP, udpLen))
	if sum == 0 {
		sum = 0xffff // zero would say that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return frame
}
