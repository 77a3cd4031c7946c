package offload

import "encoding/binary"

// VerifyTransport reports whether the TCP, UDP, ICMP or ICMPv6 checksum of p is
// right. parts are the frame from its first byte, in any split. A UDP checksum of
// zero means none: allowed over IPv4 (RFC 768), not over IPv6 (RFC 8200, section
// 8.1). True also for what has no checksum to verify here: fragments, whose sum
// the stack checks after it has put them together, and other protocols.
func VerifyTransport(p *Packet, parts [][]byte) bool {
	if p.L4Len == 0 {
		return true
	}
	length := p.L4Len + p.PayloadLen
	var pseudo uint16
	if p.Proto != ProtoICMP {
		pseudo = PseudoSum(p.Src, p.Dst, p.Proto, length)
	}
	if p.Proto == ProtoUDP && load16(parts, p.L3Len+CsumOffsetUDP) == 0 {
		return p.Version == 4
	}
	sum, ok := SumParts(parts, p.L3Len, length, pseudo)
	return ok && sum == 0xffff
}

// Complete finishes a partial checksum in place. parts are the packet from its
// first byte, in any split, without padding. It clears NEEDS_CSUM in h, so that h
// stays true and a second call does nothing. It reports whether there was room
// for the field where h says it is; if not, nothing was written. The arithmetic
// is that of net/core/dev.c, skb_checksum_help.
func Complete(h *Hdr, parts [][]byte) bool {
	if h.Flags&FlagNeedsCsum == 0 {
		return true
	}
	n := 0
	for _, b := range parts {
		n += len(b)
	}
	start := int(h.CsumStart)
	field := start + int(h.CsumOffset)
	if field+2 > n {
		return false
	}
	sum, _ := SumParts(parts, start, n-start, 0)
	store16(parts, field, notZero(^sum))
	h.Flags &^= FlagNeedsCsum
	return true
}

// notZero returns the other zero of ones' complement for zero, which in a UDP
// header would mean that there is no checksum (RFC 768; CSUM_MANGLED_0).
func notZero(csum uint16) uint16 {
	if csum == 0 {
		return 0xffff
	}
	return csum
}

// load16 returns the big-endian word at offset off of the parts, as far as it is
// there.
func load16(parts [][]byte, off int) uint16 {
	var b [2]byte
	for i := range b {
		if p := byteAt(parts, off+i); p != nil {
			b[i] = *p
		}
	}
	return binary.BigEndian.Uint16(b[:])
}

// store16 writes v at offset off of the parts, as far as they reach.
func store16(parts [][]byte, off int, v uint16) {
	for i, x := range [2]byte{byte(v >> 8), byte(v & 0xff)} {
		if p := byteAt(parts, off+i); p != nil {
			*p = x
		}
	}
}

// byteAt returns the byte at offset off of the parts, nil if they end before.
func byteAt(parts [][]byte, off int) *byte {
	for _, b := range parts {
		if off < len(b) {
			return &b[off]
		}
		off -= len(b)
	}
	return nil
}
