package offload

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	tcpMaxLen = 60 // Data Offset has 4 bits and counts words

	// maxMerged is the longest superframe: what an IPv4 Total Length can say.
	// IPv6 could say 40 more; skb_gro_receive does not use them either
	// (GRO_LEGACY_MAX_SIZE).
	maxMerged = ipv4MaxLen
)

// unfit returns what keeps a TCP segment from being merged with any other. A bare
// acknowledgment is never merged: three of them with the same number are a fast
// retransmit (RFC 5681, section 3.2), and a stack counts them.
func unfit(h *Hdr, p *Packet) Bar {
	switch {
	case h.IsSuper():
		return BarSuper
	case h.Flags&(FlagNeedsCsum|FlagDataValid) == 0:
		return BarUnverified
	case !plainIP(p):
		return BarOptions
	case p.TCPFlags&(TCPSyn|TCPRst|TCPUrg) != 0:
		return BarFlags
	case p.PayloadLen == 0:
		return BarEmpty
	}
	return BarNone
}

// plainIP reports whether p has neither IPv4 options nor IPv6 extension headers.
func plainIP(p *Packet) bool {
	if p.Version == 4 {
		return p.L3Len == ipv4HdrLen
	}
	return p.L3Len == ipv6HdrLen
}

// fits returns what keeps a segment of b's flow, itself not unfit, from being b's
// next. Where the segment is the second with an IPv4 identification, it decides how
// the others go on.
func (c *Coalescer) fits(b *bundle, p *Packet, head []byte) Bar {
	if b.ended {
		return BarEnded
	}
	first := c.frames[b.first].Head
	tcp := head[p.L3Len : p.L3Len+p.L4Len]
	switch {
	case p.TCPFlags&TCPCwr != 0: // tcp_gso_segment would leave it to the first
		return BarFlags
	case !sameIP(p.Version, first, head) || !sameTCP(first[p.L3Len:], tcp):
		return BarHeader
	case binary.BigEndian.Uint32(tcp[4:]) != b.next:
		return BarSequence
	case p.PayloadLen > b.size || b.packet.Len+p.PayloadLen > maxMerged:
		return BarSize
	case p.Version == 4 && !b.nextID(first, head):
		return BarID
	}
	return BarNone
}

// sameIP compares two IP headers of one flow, without options, in all but length,
// checksum and identification. The IPv6 flow label is among the rest: within one
// 5-tuple it may change (RFC 6438), and then both must stay in order, which is why
// it is no part of the flow here.
func sameIP(version uint8, a, b []byte) bool {
	if version == 6 {
		const traffic = 1<<32 - 1 // version, traffic class, flow label
		x := binary.BigEndian.Uint64(a) ^ binary.BigEndian.Uint64(b)
		return x&(traffic<<32|0xffff) == 0 // next header, hop limit
	}
	x := binary.BigEndian.Uint64(a) ^ binary.BigEndian.Uint64(b)
	const vary = 0x0000ffffffff0000     // all but version, IHL and TOS, and DF
	return x&^vary == 0 && a[8] == b[8] // TTL
}

// sameTCP compares two TCP headers of one flow in all but sequence number, checksum
// and what differs between the segments of a superframe: FIN, PSH and CWR. A window
// that changed is a message by itself, as in tcp_gro_receive, whose tcp_flag_word
// holds it. Options must be the same bytes: with timestamps, those of one tick.
func sameTCP(a, b []byte) bool {
	const vary = (TCPFin | TCPPsh | TCPCwr) << 16
	word := binary.BigEndian.Uint32(a[12:]) ^ binary.BigEndian.Uint32(b[12:]) // with Data Offset
	ack := binary.BigEndian.Uint32(a[8:]) ^ binary.BigEndian.Uint32(b[8:])
	urgent := binary.BigEndian.Uint16(a[18:]) ^ binary.BigEndian.Uint16(b[18:])
	return word&^vary|ack|uint32(urgent) == 0 && bytes.Equal(a[tcpHdrLen:len(b)], b[tcpHdrLen:])
}

// nextID reports whether the IPv4 identification in head goes on from that of the
// first frame: by one a segment or, of packets that must not be fragmented, staying
// the same (RFC 6864, section 4.1). The second frame decides which
// (include/net/gro.h, inet_gro_flush).
func (b *bundle) nextID(first, head []byte) bool {
	const dontFragment = 0x40
	step := int(binary.BigEndian.Uint16(head[4:]) - binary.BigEndian.Uint16(first[4:]))
	if b.count == 1 {
		b.fixedID = step == 0 && head[6]&dontFragment != 0
	}
	if b.fixedID {
		return step == 0
	}
	return step == b.count
}

// find returns the flow of a segment, 1 + its index, or 0 if nothing is held of it.
func (c *Coalescer) find(p *Packet, head []byte) int {
	if c.recent != 0 && c.isOf(c.recent, p) {
		return c.recent
	}
	if len(c.flows) == 0 {
		return 0
	}
	i := *c.bucket(p, head)
	for i != 0 && !c.isOf(i, p) {
		i = c.flows[i-1].next
	}
	return i
}

func (c *Coalescer) isOf(at int, p *Packet) bool {
	return sameFlow(p, &c.bundles[c.flows[at-1].bundle].packet)
}

// sameFlow compares the addresses and ports of two TCP segments.
func sameFlow(p, q *Packet) bool {
	return p.SrcPort == q.SrcPort && p.DstPort == q.DstPort && p.Src == q.Src && p.Dst == q.Dst
}

// follow makes the newest bundle the last of its flow, which is new if at is 0.
func (c *Coalescer) follow(at int, p *Packet, head []byte) {
	if at == 0 {
		bucket := c.bucket(p, head)
		c.flows = append(c.flows, flow{next: *bucket})
		at = len(c.flows)
		*bucket = at
	}
	c.flows[at-1].bundle = len(c.bundles) - 1
	c.recent = at
}

// bucket returns the head of the chain in which a segment's flow is looked for.
func (c *Coalescer) bucket(p *Packet, head []byte) *int {
	ports := uint64(binary.NativeEndian.Uint32(head[p.L3Len:]))
	var h uint64
	if p.Version == 4 {
		h = c.mix(binary.NativeEndian.Uint64(head[12:]), ports)
	} else {
		h = c.mix(binary.NativeEndian.Uint64(head[8:]), binary.NativeEndian.Uint64(head[16:]))
		h = c.mix(h^binary.NativeEndian.Uint64(head[24:]), binary.NativeEndian.Uint64(head[32:]))
		h = c.mix(h, ports)
	}
	return &c.buckets[h&uint64(len(c.buckets)-1)]
}

// mix is a multiply that folds its high half in, as wyhash does.
func (c *Coalescer) mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^c.seed[0], b^c.seed[1])
	return hi ^ lo
}
