package lan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
)

// ARP over Ethernet and IPv4 (RFC 826).
const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
)

// arpPrefix is what every packet begins with: hardware type Ethernet, protocol
// IPv4, and the lengths of their addresses.
func arpPrefix() []byte { return []byte{0, 1, 0x08, 0x00, 6, 4} }

// arp is a decoded packet.
type arp struct {
	op                 uint16
	senderMAC, target  MAC // target means nothing in a request
	sender, targetAddr netip.Addr
}

// decode reads a from the body of a frame and reports whether it is one.
func (a *arp) decode(b []byte) bool {
	if len(b) < arpLen || !bytes.Equal(b[:6], arpPrefix()) {
		return false
	}
	*a = arp{
		op:         binary.BigEndian.Uint16(b[6:]),
		senderMAC:  MAC(b[8:14]),
		sender:     netip.AddrFrom4([4]byte(b[14:18])),
		target:     MAC(b[18:24]),
		targetAddr: netip.AddrFrom4([4]byte(b[24:28])),
	}
	return a.op == arpRequest || a.op == arpReply
}

// frame encodes a as a frame to one station or all.
func (a *arp) frame(to MAC) []byte {
	frame, b := newFrame(Header{Dst: to, Src: a.senderMAC, Type: TypeARP}, arpLen)
	copy(b, arpPrefix())
	binary.BigEndian.PutUint16(b[6:], a.op)
	copy(b[8:], a.senderMAC[:])
	copy(b[14:], a.sender.AsSlice())
	copy(b[18:], a.target[:])
	copy(b[24:], a.targetAddr.AsSlice())
	return frame
}

// arpInput serves an ARP packet. RFC 826's algorithm: a neighbor that is known is
// noted whatever the packet is for, a new one is made if the packet is for us.
func (l *LAN) arpInput(t *turn, f Frame, src station) (DropReason, bool) {
	var a arp
	to := MAC(f.Data[0:6])
	if !a.decode(f.Data[HdrLen:]) || a.senderMAC != src.mac() || to != l.mac && to != broadcast() {
		return DropARP, false
	}
	answer, proxied := l.answers(a.targetAddr)
	answer = answer && a.op == arpRequest
	event := EventARPAnswered
	if proxied {
		event = EventARPProxied
	}
	switch {
	case a.sender.IsUnspecified() && a.op == arpRequest:
		// A probe whether the address is free (RFC 5227, section 2.1.1). Ours
		// are not, and of others we know nothing.
		if answer && !proxied {
			l.arpAnswer(t, &a, event)
		}
		return 0, true
	case l.isOwn(a.sender):
		l.defend(t, a.sender)
		return DropSource, false
	case a.sender == a.targetAddr:
		answer = false // an announcement
	}
	if reason, ok := l.claim(t, keyOf(a.sender), src, answer); !ok {
		return reason, false
	}
	if answer {
		l.arpAnswer(t, &a, event)
	}
	return 0, true
}

// arpAnswer answers request a.
func (l *LAN) arpAnswer(t *turn, a *arp, e Event) {
	r := arp{op: arpReply, senderMAC: l.mac, sender: a.targetAddr, target: a.senderMAC, targetAddr: a.sender}
	t.reply(r.frame(a.senderMAC))
	l.count(e, 1)
}

// arpAsk asks everybody who has q's address, or its holder whether it still has.
func (l *LAN) arpAsk(t *turn, q *asking) {
	r := arp{op: arpRequest, senderMAC: l.mac, sender: l.sourceFor(q.key.addr()), targetAddr: q.key.addr()}
	to := broadcast()
	if q.claimant != 0 {
		to = q.holder.mac() // as RFC 1122, section 2.3.2.1 (2), validates an entry
	}
	t.reply(r.frame(to))
	l.count(EventARPAsked, 1)
}

// sourceFor is the gateway's IPv4 address to ask for a from: that of a's network,
// since guests ignore questions from strangers.
func (l *LAN) sourceFor(a netip.Addr) netip.Addr {
	for _, p := range l.options.Addresses {
		if p.Addr().Is4() && p.Contains(a) {
			return p.Addr()
		}
	}
	for _, p := range l.options.Addresses {
		if p.Addr().Is4() {
			return p.Addr()
		}
	}
	return netip.IPv4Unspecified()
}

// defendInterval is DEFEND_INTERVAL of RFC 5227, section 2.4: two that both
// believe an address to be theirs do not fill the link with it.
const defendInterval = 10 * time.Second

// defend says again whose address a is, which a guest used as its own.
func (l *LAN) defend(t *turn, a netip.Addr) {
	l.count(EventConflict, 1)
	if t.now-l.defendedAt < defendInterval {
		return
	}
	l.defendedAt = t.now
	l.announce(t, a)
}

// announce tells every guest the station of one of the gateway's addresses (RFC
// 5227, section 2.3; RFC 4861, section 7.2.6).
func (l *LAN) announce(t *turn, a netip.Addr) {
	if a.Is4() {
		r := arp{op: arpRequest, senderMAC: l.mac, sender: a, targetAddr: a}
		t.reply(r.frame(broadcast()))
		return
	}
	t.reply(l.advertisement(allNodes(), groupMAC(allNodes()), a, naRouter|naOverride))
}
