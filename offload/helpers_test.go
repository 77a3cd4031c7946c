package offload

import (
	"bytes"
	"encoding/hex"
	"strings"
)

// unhex turns annotated hex into bytes.
func unhex(s string) []byte {
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		panic(err)
	}
	return b
}

func be16(b []byte) int { return int(b[0])<<8 | int(b[1]) }

func be32(b []byte) uint32 { return uint32(be16(b))<<16 | uint32(be16(b[2:])) }

// naiveSum is RFC 1071 word by word, the oracle for Sum.
func naiveSum(parts ...[]byte) uint16 {
	b := bytes.Join(parts, nil)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var s uint64
	for i := 0; i < len(b); i += 2 {
		s += uint64(be16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// naivePseudo is the pseudo-header before a transport packet of n bytes; IPv4's is
// written in IPv6's layout, which has the same sum.
func naivePseudo(frame []byte, proto uint8, n int) []byte {
	addrs := frame[12:20]
	if frame[0]>>4 == 6 {
		addrs = frame[8:40]
	}
	return append(bytes.Clone(addrs), 0, 0, byte(n>>8), byte(n), 0, 0, 0, proto)
}

// reseal4 makes an IPv4 header checksum right.
func reseal4(b []byte) []byte {
	n := int(b[0]&15) * 4
	b[10], b[11] = 0, 0
	sum := ^naiveSum(b[:n])
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// sealTransport makes the checksum of the transport header at l3 right, or leaves
// the pseudo-header sum there.
func sealTransport(b []byte, proto uint8, l3 int, partial bool) []byte {
	field := l3 + map[uint8]int{ProtoTCP: 16, ProtoUDP: 6}[proto]
	b[field], b[field+1] = 0, 0
	sum := naiveSum(naivePseudo(b, proto, len(b)-l3))
	if !partial {
		sum = ^naiveSum(naivePseudo(b, proto, len(b)-l3), b[l3:])
		if proto == ProtoUDP && sum == 0 {
			sum = 0xffff
		}
	}
	b[field], b[field+1] = byte(sum>>8), byte(sum)
	return b
}

// superOpts describes a superframe for makeSuper.
type superOpts struct {
	v6, udp   bool
	ipOptions int // words of IPv4 options, or 8-byte IPv6 extension headers
	options   int // words of TCP options
	flags     uint8
	seq       uint32
	id        uint16
	size      uint16
}

// makeSuper builds a superframe the plain way, with its header.
func makeSuper(o superOpts, payload []byte) (Hdr, []byte) {
	proto, l4 := uint8(ProtoTCP), make([]byte, 20+4*o.options)
	if o.udp {
		proto, l4 = ProtoUDP, make([]byte, 8)
		n := 8 + len(payload)
		l4[4], l4[5] = byte(n>>8), byte(n)
	} else {
		copy(l4[4:], []byte{byte(o.seq >> 24), byte(o.seq >> 16), byte(o.seq >> 8), byte(o.seq)})
		l4[12] = byte(len(l4) / 4 << 4)
		l4[13] = o.flags
		for i := range l4[20:] {
			l4[20+i] = 1 // NOP
		}
	}
	copy(l4, []byte{0x9c, 0x40, 0, 80})
	frame := makeIP(o, proto, len(l4)+len(payload))
	h := Hdr{
		Flags: FlagNeedsCsum, GSOType: GSOTCPv4, GSOSize: o.size,
		CsumStart: uint16(len(frame)), CsumOffset: CsumOffsetTCP,
	}
	if o.v6 {
		h.GSOType = GSOTCPv6
	}
	if o.udp {
		h.GSOType, h.CsumOffset = GSOUDPL4, CsumOffsetUDP
	}
	frame = append(append(frame, l4...), payload...)
	return h, sealTransport(frame, proto, int(h.CsumStart), true)
}

func makeIP(o superOpts, proto uint8, n int) []byte {
	if !o.v6 {
		b := make([]byte, 20+4*o.ipOptions)
		n += len(b)
		copy(b, []byte{0x40 | byte(len(b)/4), 0, byte(n >> 8), byte(n), byte(o.id >> 8), byte(o.id), 0x40, 0, 64, proto})
		copy(b[12:], []byte{198, 18, 0, 2, 192, 0, 2, 1})
		return reseal4(b)
	}
	n += 8 * o.ipOptions
	b := append([]byte{0x60, 0, 0, 0, byte(n >> 8), byte(n), proto, 64}, unhex(goldenTCP6)[8:40]...)
	if o.ipOptions > 0 {
		b[6] = extDstOptions
	}
	for i := range o.ipOptions {
		next := byte(extDstOptions)
		if i == o.ipOptions-1 {
			next = proto
		}
		b = append(b, next, 0, 1, 4, 0, 0, 0, 0)
	}
	return b
}

// split cuts b into parts at the lengths that cuts gives, some of them empty.
func split(b, cuts []byte) (parts [][]byte) {
	for _, c := range cuts {
		n := min(int(c), len(b))
		parts = append(parts, b[:n])
		b = b[n:]
	}
	return append(parts, b)
}
