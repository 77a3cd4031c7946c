package offload

import "encoding/binary"

// Outdated reports whether next, the packet behind p in its queue, tells a stack all
// that p does, so that p need not be delivered: both are bare acknowledgments of one
// flow, and next acknowledges more. p and next are what Parse found, pHead and nextHead
// hold their IP and TCP headers, and the checksums of both were found good.
//
// What is a message by itself is not outdated: the same number again (RFC 5681, section
// 3.2), SACK blocks, ECN-Echo, and an acknowledgment that next, with an earlier
// timestamp, may not replace (RFC 7323, section 5).
func Outdated(p, next *Packet, pHead, nextHead []byte) bool {
	if !bareACK(p) || !bareACK(next) || p.SrcPort != next.SrcPort || p.DstPort != next.DstPort ||
		p.L4Len != next.L4Len || p.Src != next.Src || p.Dst != next.Dst || !sameIP(p.Version, pHead, nextHead) {
		return false
	}
	a, b := pHead[p.L3Len:p.L3Len+p.L4Len], nextHead[next.L3Len:next.L3Len+next.L4Len]
	if binary.BigEndian.Uint32(a[4:]) != binary.BigEndian.Uint32(b[4:]) || !later(a[8:], b[8:]) {
		return false
	}
	if len(a) == tcpHdrLen {
		return true
	}
	return stamped(a) && stamped(b) && (later(a[24:], b[24:]) || binary.BigEndian.Uint32(a[24:]) == binary.BigEndian.Uint32(b[24:]))
}

// bareACK reports whether p acknowledges, and nothing else.
func bareACK(p *Packet) bool {
	plain := ipv6HdrLen
	if p.Version == 4 {
		plain = ipv4HdrLen
	}
	return p.Proto == ProtoTCP && !p.Fragment && p.TCPFlags == TCPAck && p.PayloadLen == 0 && p.L3Len == plain
}

// later reports whether the sequence number or timestamp in b is beyond that in a.
func later(a, b []byte) bool {
	return int32(binary.BigEndian.Uint32(b)-binary.BigEndian.Uint32(a)) > 0 //nolint:gosec // modulo 2^32, as RFC 9293 has it
}

// stamped reports whether all options of a TCP header are timestamps, as RFC 7323,
// appendix A, lays them out.
func stamped(tcp []byte) bool {
	const nopNopTimestamps = 0x0101080a
	return len(tcp) == tcpHdrLen+12 && binary.BigEndian.Uint32(tcp[tcpHdrLen:]) == nopNopTimestamps
}
