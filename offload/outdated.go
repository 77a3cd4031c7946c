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
	if !bareACK(p) || !bareACK(next) || p.L4Len != next.L4Len || !sameFlow(p, next) || !sameIP(p.Version, pHead, nextHead) {
		return false
	}
	a, b := pHead[p.L3Len:p.L3Len+p.L4Len], nextHead[next.L3Len:next.L3Len+next.L4Len]
	if ahead(a[4:], b[4:]) != 0 || ahead(a[8:], b[8:]) <= 0 {
		return false
	}
	return len(a) == tcpHdrLen || stamped(a) && stamped(b) && ahead(a[24:], b[24:]) >= 0
}

// bareACK reports whether p acknowledges, and nothing else.
func bareACK(p *Packet) bool {
	return p.Proto == ProtoTCP && !p.Fragment && p.TCPFlags == TCPAck && p.PayloadLen == 0 && plainIP(p)
}

// ahead returns by how much the sequence number or timestamp in b is beyond that in a.
func ahead(a, b []byte) int32 {
	return int32(binary.BigEndian.Uint32(b) - binary.BigEndian.Uint32(a)) //nolint:gosec // modulo 2^32, as RFC 9293 has it
}

// stamped reports whether all options of a TCP header are timestamps, as RFC 7323,
// appendix A, lays them out.
func stamped(tcp []byte) bool {
	const nopNopTimestamps = 0x0101080a
	return len(tcp) == tcpHdrLen+12 && binary.BigEndian.Uint32(tcp[tcpHdrLen:]) == nopNopTimestamps
}
