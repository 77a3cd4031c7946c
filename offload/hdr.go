package offload

import "encoding/binary"

// HdrLen is the length of struct virtio_net_hdr without num_buffers, which is
// what a TUN device uses unless TUNSETVNETHDRSZ says otherwise.
const HdrLen = 10

// GSOType says which segmentation a superframe asks for.
type GSOType uint8

// The GSO types of linux/virtio_net.h (VIRTIO_NET_HDR_GSO_*).
const (
	GSONone  GSOType = 0
	GSOTCPv4 GSOType = 1
	GSOUDP   GSOType = 3 // UFO, IP fragments of one datagram; never accepted
	GSOTCPv6 GSOType = 4
	GSOUDPL4 GSOType = 5 // USO, one datagram a segment
)

// GSOECN is a bit on top of a TCP type: the superframe carries CWR, which belongs
// on its first segment alone (RFC 3168, section 6.1.2).
const GSOECN = 0x80

// Base returns t without the ECN bit.
func (t GSOType) Base() GSOType { return t &^ GSOECN }

// String returns the kernel's name in lower case.
func (t GSOType) String() string {
	ecn := ""
	if t&GSOECN != 0 {
		ecn = "+ecn"
	}
	switch t.Base() {
	case GSONone:
		return "none" + ecn
	case GSOTCPv4:
		return "tcpv4" + ecn
	case GSOUDP:
		return "udp" + ecn
	case GSOTCPv6:
		return "tcpv6" + ecn
	case GSOUDPL4:
		return "udp_l4" + ecn
	}
	return "unknown"
}

// The flags of linux/virtio_net.h (VIRTIO_NET_HDR_F_*). Others are ignored, as
// virtio 1.2, section 5.1.6.4.2 wants it.
const (
	FlagNeedsCsum = 1 // the checksum field holds the pseudo-header sum only
	FlagDataValid = 2 // the checksum was verified, or the frame never left the host
)

// The offsets of the checksum field in the transport header, the only values
// CsumOffset may have (offsetof(struct tcphdr, check) and udphdr's).
const (
	CsumOffsetTCP = 16
	CsumOffsetUDP = 6
)

// Hdr is a struct virtio_net_hdr. The zero value stands for a plain frame with
// complete checksums.
type Hdr struct {
	Flags      uint8
	GSOType    GSOType
	HdrLen     uint16 // length of all headers; a hint that is never read here
	GSOSize    uint16 // payload bytes a segment
	CsumStart  uint16 // offset of the transport header
	CsumOffset uint16 // of the checksum field, from CsumStart
}

// Decode reads h from the first HdrLen bytes of b and reports whether they are
// there. The byte order is the host's: a TUN without TUNSETVNETLE or
// TUNSETVNETBE is a legacy virtio device (drivers/net/tun.c,
// tun_legacy_is_little_endian).
func (h *Hdr) Decode(b []byte) (ok bool) {
	if len(b) < HdrLen {
		return false
	}
	b = b[:HdrLen]
	h.Flags = b[0]
	h.GSOType = GSOType(b[1])
	h.HdrLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumOffset = binary.NativeEndian.Uint16(b[8:])
	return true
}

// Encode writes h to the first HdrLen bytes of b, which must be there.
func (h *Hdr) Encode(b []byte) {
	b = b[:HdrLen]
	b[0] = h.Flags
	b[1] = uint8(h.GSOType)
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}

// IsSuper reports whether h stands before a superframe.
func (h *Hdr) IsSuper() bool { return h.GSOType != GSONone }

// Check compares h with the packet that follows it, as Parse found it, and
// returns OK, BadHdr or BadGSO. It is stricter than the kernel, which takes from
// a writer a superframe without NEEDS_CSUM or of another protocol; the kernel
// itself builds no such frame (net/ipv4/tcp_offload.c, tcp_gro_complete;
// net/ipv4/udp_offload.c, udp_gro_complete_segment).
func (h *Hdr) Check(p *Packet) Verdict {
	if h.Flags&FlagNeedsCsum != 0 && !h.csumFits(p) {
		return BadHdr
	}
	if h.GSOType == GSONone {
		return OK
	}
	var fits bool
	switch h.GSOType.Base() {
	case GSOTCPv4:
		fits = p.Version == 4 && p.superTCP()
	case GSOTCPv6:
		fits = p.Version == 6 && p.superTCP()
	case GSOUDPL4:
		fits = p.Proto == ProtoUDP && h.GSOType&GSOECN == 0
	default: // UFO, tunnels, ECN alone, unknown
		return BadGSO
	}
	// A superframe whose payload is shorter than one segment has lost bytes.
	// Equal is fine: virtio_net_hdr_to_skb takes it for a plain frame.
	if !fits || h.Flags&FlagNeedsCsum == 0 || h.GSOSize == 0 || int(h.GSOSize) > p.PayloadLen {
		return BadHdr
	}
	return OK
}

// csumFits reports whether the partial checksum that h announces is that of p's
// transport header. Trailing bytes that a UDP length leaves out are refused: the
// kernel sums to the end of the packet, a receiver to the end of the datagram.
func (h *Hdr) csumFits(p *Packet) bool {
	if p.L4Len == 0 || int(h.CsumStart) != p.L3Len || p.L3Len+p.L4Len+p.PayloadLen != p.Len {
		return false
	}
	switch p.Proto {
	case ProtoTCP:
		return h.CsumOffset == CsumOffsetTCP
	case ProtoUDP:
		return h.CsumOffset == CsumOffsetUDP
	}
	return false
}

// superTCP reports whether p can be many TCP segments. SYN and RST would be
// repeated by each of them; tcp_gro_receive never merges those.
func (p *Packet) superTCP() bool {
	return p.Proto == ProtoTCP && p.TCPFlags&(TCPSyn|TCPRst) == 0
}
