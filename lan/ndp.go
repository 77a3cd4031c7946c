package lan

import (
	"encoding/binary"
	"net/netip"

	"github.com/tungate/tungate/offload"
)

// Neighbor discovery (RFC 4861).
const (
	ipv6HdrLen  = 40
	ndpHopLimit = 255 // what no router lets through

	ndpRS       = 133
	ndpRA       = 134
	ndpNS       = 135
	ndpNA       = 136
	ndpRedirect = 137

	// The least lengths, with the ICMPv6 header (sections 4.1 to 4.5).
	rsLen = 8
	raLen = 16
	nsLen = 24

	// Options (section 4.6, RFC 8106). Lengths on the wire count 8 bytes.
	optSourceLLA = 1
	optTargetLLA = 2
	optPrefix    = 3
	optMTU       = 5
	optRDNSS     = 25
	llaLen       = 8 // of the two addresses, over Ethernet

	// The flags of a neighbor advertisement, in its fifth byte (section 4.4).
	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20
)

func allNodes() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1}) }

// solicitedNode is the group of those that may have a (RFC 4291, section 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	g := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff}
	b := a.As16()
	copy(g[13:], b[13:])
	return netip.AddrFrom16(g)
}

// isNDP reports whether typ is a message of neighbor discovery.
func isNDP(typ byte) bool { return typ >= ndpRS && typ <= ndpRedirect }

// ndpMessage is a message that passed the checks common to all (sections 6.1 and
// 7.1).
type ndpMessage struct {
	packet offload.Packet
	icmp   []byte
	lla    MAC // of the option that the type of message has
	hasLLA bool
}

// decode reads m from an IPv6 packet whose first next header is ICMPv6, or says why
// not.
func (m *ndpMessage) decode(ip []byte, verified bool) (DropReason, bool) {
	if v := offload.Parse(&m.packet, ip, len(ip)); v == offload.Truncated {
		return DropTruncated, false
	} else if v != offload.OK {
		return DropNDP, false
	}
	p := &m.packet
	m.icmp = ip[p.L3Len:p.Len]
	switch {
	case m.icmp[1] != 0: // code
		return DropNDP, false
	case ip[7] != ndpHopLimit:
		return DropHopLimit, false
	case !verified && !offload.VerifyTransport(p, [][]byte{ip}):
		return DropChecksum, false
	}
	return 0, true
}

// options walks the options behind the first n bytes, keeps the link-layer address
// of kind, and reports whether they are well-formed.
func (m *ndpMessage) options(n int, kind byte) bool {
	if len(m.icmp) < n {
		return false
	}
	for b := m.icmp[n:]; len(b) > 0; {
		if len(b) < 2 || b[1] == 0 || int(b[1])*8 > len(b) {
			return false
		}
		if b[0] == kind {
			if b[1] != llaLen/8 {
				return false
			}
			m.lla, m.hasLLA = MAC(b[2:8]), true
		}
		b = b[int(b[1])*8:]
	}
	return true
}

// ndpInput serves a message of neighbor discovery.
func (l *LAN) ndpInput(t *turn, f Frame, src station) (DropReason, bool) {
	var m ndpMessage
	if reason, ok := m.decode(f.Data[HdrLen:], f.Verified); !ok {
		return reason, false
	}
	switch m.icmp[0] {
	case ndpRS:
		return l.routerSolicit(t, &m, src)
	case ndpNS:
		return l.neighborSolicit(t, &m, src)
	case ndpNA:
		return l.neighborAdvert(t, &m, src)
	case ndpRA:
		return DropRogueRA, false
	}
	return DropRedirect, false
}

// routerSolicit serves a router solicitation (sections 6.1.1 and 6.2.6).
func (l *LAN) routerSolicit(t *turn, m *ndpMessage, src station) (DropReason, bool) {
	from := m.packet.Src
	if !m.options(rsLen, optSourceLLA) || m.hasLLA && (from.IsUnspecified() || m.lla != src.mac()) {
		return DropNDP, false
	}
	if !from.IsUnspecified() {
		if reason, ok := l.claim(t, keyOf(from), src, true); !ok {
			return reason, false
		}
	}
	l.count(EventRS, 1)
	l.ra.solicited(t.now)
	return 0, true
}

// neighborSolicit serves a neighbor solicitation (sections 7.1.1 and 7.2.3).
func (l *LAN) neighborSolicit(t *turn, m *ndpMessage, src station) (DropReason, bool) {
	from, to := m.packet.Src, m.packet.Dst
	if !m.options(nsLen, optSourceLLA) || m.hasLLA && m.lla != src.mac() {
		return DropNDP, false
	}
	target := netip.AddrFrom16([16]byte(m.icmp[8:24]))
	answer, proxied := l.answers(target)
	probe := from.IsUnspecified()
	switch {
	case target.IsMulticast(), probe && (m.hasLLA || to != solicitedNode(target)):
		return DropNDP, false
	case probe:
		// Duplicate address detection (RFC 4862, section 5.4): ours are taken,
		// of others we know nothing.
		if answer && !proxied {
			t.reply(l.advertisement(allNodes(), groupMAC(allNodes()), target, naRouter|naOverride))
			l.count(EventNDPAnswered, 1)
		}
		return 0, true
	}
	if reason, ok := l.claim(t, keyOf(from), src, answer); !ok {
		if l.isOwn(from) {
			l.defend(t, from)
		}
		return reason, false
	}
	switch {
	case answer && proxied:
		// No Override: should somebody have the address after all, the answer
		// of that one counts (section 7.2.8).
		t.reply(l.advertisement(from, src.mac(), target, naRouter|naSolicited))
		l.count(EventNDPProxied, 1)
	case answer:
		t.reply(l.advertisement(from, src.mac(), target, naRouter|naSolicited|naOverride))
		l.count(EventNDPAnswered, 1)
	}
	return 0, true
}

// neighborAdvert serves a neighbor advertisement (sections 7.1.2 and 7.2.5).
func (l *LAN) neighborAdvert(t *turn, m *ndpMessage, src station) (DropReason, bool) {
	if !m.options(nsLen, optTargetLLA) || m.hasLLA && m.lla != src.mac() {
		return DropNDP, false
	}
	target := netip.AddrFrom16([16]byte(m.icmp[8:24]))
	if target.IsMulticast() || m.packet.Dst.IsMulticast() && m.icmp[4]&naSolicited != 0 {
		return DropNDP, false
	}
	if l.isOwn(target) {
		l.defend(t, target)
		return DropSource, false
	}
	return l.claim(t, keyOf(target), src, false)
}

// advertisement is a neighbor advertisement that the target is at the gateway.
func (l *LAN) advertisement(to netip.Addr, at MAC, target netip.Addr, flags byte) []byte {
	source := target
	if !l.isOwn(target) {
		source = l.linkLocal // who answers by proxy is not the target
	}
	frame, b := l.icmp6(source, to, at, nsLen+llaLen)
	b[0] = ndpNA
	b[4] = flags
	copy(b[8:], target.AsSlice())
	putLLA(b[nsLen:], optTargetLLA, l.mac)
	sum6(frame)
	return frame
}

// ndpAsk asks everybody who has q's address, or its holder whether it still has
// (sections 4.3, 7.2.2 and 7.3.3).
func (l *LAN) ndpAsk(t *turn, q *asking) {
	target := q.key.addr()
	to := solicitedNode(target)
	at := groupMAC(to)
	if q.claimant != 0 {
		to, at = target, q.holder.mac()
	}
	frame, b := l.icmp6(l.linkLocal, to, at, nsLen+llaLen)
	b[0] = ndpNS
	copy(b[8:], target.AsSlice())
	putLLA(b[nsLen:], optSourceLLA, l.mac)
	sum6(frame)
	t.reply(frame)
	l.count(EventNDPAsked, 1)
}

func putLLA(b []byte, kind byte, m MAC) {
	b[0], b[1] = kind, llaLen/8
	copy(b[2:], m[:])
}

// icmp6 returns a frame of ours with n bytes of ICMPv6 to be filled in; sum6
// finishes it.
func (l *LAN) icmp6(from, to netip.Addr, at MAC, n int) (frame, icmp []byte) {
	frame, ip := newFrame(Header{Dst: at, Src: l.mac, Type: TypeIPv6}, ipv6HdrLen+n)
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(n)) //nolint:gosec // Options bound what an advertisement lists
	ip[6] = offload.ProtoICMPv6
	ip[7] = ndpHopLimit
	copy(ip[8:], from.AsSlice())
	copy(ip[24:], to.AsSlice())
	return frame, ip[ipv6HdrLen:]
}

// sum6 writes the checksum of a frame of icmp6's.
func sum6(frame []byte) {
	ip := frame[HdrLen:]
	icmp := ip[ipv6HdrLen:]
	src, dst := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	sum := offload.Sum(icmp, offload.PseudoSum(src, dst, offload.ProtoICMPv6, len(icmp)))
	binary.BigEndian.PutUint16(icmp[2:], ^sum)
}
