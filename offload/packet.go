package offload

import (
	"encoding/binary"
	"net/netip"
)

// The protocol numbers this package knows (IANA).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// The bits of Packet.TCPFlags (RFC 9293, section 3.1).
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// Header lengths and limits.
const (
	ipv4HdrLen = 20                 // RFC 791, section 3.1, without options
	ipv4MaxLen = 65535              // its Total Length has 16 bits
	ipv6HdrLen = 40                 // RFC 8200, section 3
	ipv6MaxLen = ipv6HdrLen + 65535 // its Payload Length has 16 bits
	tcpHdrLen  = 20                 // RFC 9293, section 3.1, without options
	udpHdrLen  = 8                  // RFC 768
	icmpHdrLen = 8                  // the least of all messages of RFC 792 and RFC 4443
)

// Packet is what Parse found out about an IP packet. It is valid only if Parse
// returned OK; then L3Len+L4Len+PayloadLen <= Len <= the frame's length, and the
// headers lie within the head that was parsed. It holds no reference to the frame.
type Packet struct {
	Version  uint8 // 4 or 6
	Proto    uint8 // transport protocol, behind all IPv6 extension headers
	TCPFlags uint8 // valid iff TCP and not Fragment

	// Fragment is set on every piece of a fragmented packet, the first too. Its
	// transport header must not be looked at. An IPv6 packet with a Fragment
	// header that is whole all the same is no fragment (RFC 6946).
	Fragment bool

	SrcPort, DstPort uint16 // valid iff TCP or UDP and not Fragment

	// Len is the IP packet's length by its own header. Bytes of the frame past
	// it are padding, to be cut.
	Len   int
	L3Len int // offset of the transport header
	L4Len int // of a TCP, UDP or ICMP header; 0 if Fragment or another protocol

	// PayloadLen is what follows the transport header, valid iff L4Len > 0. A
	// UDP length may leave out the packet's last bytes.
	PayloadLen int

	Src, Dst netip.Addr // as on the wire: ::ffff:0:0/96 in IPv6 is not unmapped
}

// Parse reads the headers of one frame of total bytes. head is its beginning: all
// of it, or as much as holds every header; headers that end beyond head are
// Truncated. 128 bytes are enough for IPv4 (at most 60+60) and for IPv6 with up
// to 24 bytes of extension headers under the longest TCP header, 56 under the
// usual 32. Transport checksums are not verified.
func Parse(p *Packet, head []byte, total int) Verdict {
	if len(head) == 0 {
		return Truncated
	}
	switch head[0] >> 4 {
	case 4:
		return p.parseIPv4(head, total)
	case 6:
		return p.parseIPv6(head, total)
	}
	return BadVersion
}

func (p *Packet) parseIPv4(head []byte, total int) Verdict {
	if len(head) < ipv4HdrLen {
		return Truncated
	}
	hdrLen := int(head[0]&0x0f) * 4 // IHL counts words
	length := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case hdrLen < ipv4HdrLen || length < hdrLen || total > ipv4MaxLen:
		return BadIP
	case hdrLen > len(head) || length > total:
		return Truncated
	case Sum(head[:hdrLen], 0) != 0xffff:
		return BadIP
	}
	const moreOrOffset = 0x3fff // MF and the 13 bits of Fragment Offset
	*p = Packet{
		Version:  4,
		Proto:    head[9],
		Fragment: binary.BigEndian.Uint16(head[6:])&moreOrOffset != 0,
		Len:      length,
		L3Len:    hdrLen,
		Src:      netip.AddrFrom4([4]byte(head[12:16])),
		Dst:      netip.AddrFrom4([4]byte(head[16:20])),
	}
	return p.parseTransport(head)
}

func (p *Packet) parseIPv6(head []byte, total int) Verdict {
	if len(head) < ipv6HdrLen {
		return Truncated
	}
	length := ipv6HdrLen + int(binary.BigEndian.Uint16(head[4:]))
	if total > ipv6MaxLen {
		return BadIP
	}
	if length > total {
		return Truncated
	}
	*p = Packet{
		Version: 6,
		Proto:   head[6],
		Len:     length,
		L3Len:   ipv6HdrLen,
		Src:     netip.AddrFrom16([16]byte(head[8:24])),
		Dst:     netip.AddrFrom16([16]byte(head[24:40])),
	}
	if v := p.skipExtensions(head[:min(len(head), length)]); v != OK {
		return v
	}
	return p.parseTransport(head)
}

// IPv6 extension headers (IANA), those that a stack steps over to find the
// transport.
const (
	extHopByHop   = 0  // RFC 8200, section 4.3
	extRouting    = 43 // section 4.4
	extFragment   = 44 // section 4.5
	extDstOptions = 60 // section 4.6

	// extExperiment is RFC 3692's; gVisor reads it as 8 bytes of options
	// (header.IPv6ExperimentExtHdr). Who does not step over it is blind to what
	// the stack will see behind it.
	extExperiment = 253
)

// skipExtensions moves L3Len and Proto behind the extension headers of head,
// which ends with the packet or before. It stops where the stack stops: at a
// fragment, at a Hop-by-Hop header that is not the first (RFC 8200, section 4.1),
// and at AH, which the stack answers with an ICMP error as it does ESP.
func (p *Packet) skipExtensions(head []byte) Verdict {
	for first := true; ; first = false {
		switch {
		case p.Proto == extHopByHop && first:
		case p.Proto == extRouting, p.Proto == extFragment, p.Proto == extDstOptions, p.Proto == extExperiment:
		default:
			return OK
		}
		ext := head[p.L3Len:]
		if len(ext) < 8 { // each is a multiple of 8 bytes
			return Truncated
		}
		size := 8
		switch p.Proto {
		case extFragment:
			const moreOrOffset = 0xfff9 // M and the 13 bits of Fragment Offset
			p.Fragment = binary.BigEndian.Uint16(ext[2:])&moreOrOffset != 0
		case extExperiment: // of fixed size
		default:
			size += int(ext[1]) * 8
		}
		if size > len(ext) {
			return Truncated
		}
		p.Proto = ext[0]
		p.L3Len += size
		if p.Fragment {
			return OK
		}
	}
}

func (p *Packet) parseTransport(head []byte) Verdict {
	if p.Fragment {
		return OK
	}
	l4 := head[p.L3Len:min(len(head), p.Len)]
	switch p.Proto {
	case ProtoTCP:
		return p.parseTCP(l4)
	case ProtoUDP:
		return p.parseUDP(l4)
	case ProtoICMP, ProtoICMPv6:
		return p.parseICMP(l4)
	}
	return OK
}

func (p *Packet) parseTCP(l4 []byte) Verdict {
	if len(l4) < tcpHdrLen {
		return Truncated
	}
	hdrLen := int(l4[12]>>4) * 4 // Data Offset counts words
	if hdrLen < tcpHdrLen || hdrLen > p.Len-p.L3Len {
		return BadTransport
	}
	if hdrLen > len(l4) {
		return Truncated
	}
	p.ports(l4)
	p.TCPFlags = l4[13]
	p.L4Len = hdrLen
	p.PayloadLen = p.Len - p.L3Len - hdrLen
	return OK
}

func (p *Packet) parseUDP(l4 []byte) Verdict {
	if len(l4) < udpHdrLen {
		return Truncated
	}
	length := int(binary.BigEndian.Uint16(l4[4:]))
	if length < udpHdrLen || length > p.Len-p.L3Len {
		return BadTransport
	}
	p.ports(l4)
	p.L4Len = udpHdrLen
	p.PayloadLen = length - udpHdrLen
	return OK
}

// parseICMP leaves alone a protocol number of the other IP version: to the stack
// that is an unknown protocol.
func (p *Packet) parseICMP(l4 []byte) Verdict {
	if (p.Version == 4) != (p.Proto == ProtoICMP) {
		return OK
	}
	if len(l4) < icmpHdrLen {
		return Truncated
	}
	p.L4Len = icmpHdrLen
	p.PayloadLen = p.Len - p.L3Len - icmpHdrLen
	return OK
}

func (p *Packet) ports(l4 []byte) {
	p.SrcPort = binary.BigEndian.Uint16(l4)
	p.DstPort = binary.BigEndian.Uint16(l4[2:])
}
