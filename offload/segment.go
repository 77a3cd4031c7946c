package offload

import "encoding/binary"

// Segment is one frame cut from a superframe.
type Segment struct {
	Head    []byte   // IP and transport header
	Payload [][]byte // pieces of the superframe's payload, none of them empty
	Len     int      // of the whole frame
}

// Segmenter cuts an outbound superframe into frames of the GSO size, without
// copying payload. It does what tcp_gso_segment (net/ipv4/tcp_offload.c) and
// __udp_gso_segment (net/ipv4/udp_offload.c) do under inet_gso_segment and
// ipv6_gso_segment, with complete checksums. The zero value is ready; one that
// is used again allocates nothing.
type Segmenter struct {
	// FixedID gives all IPv4 segments the superframe's identification, as
	// SKB_GSO_TCP_FIXEDID does, instead of one more each. Only packets that must
	// not be fragmented may share one (RFC 6864, section 4.1).
	FixedID bool

	hdr   []byte   // headers of the segment being built
	vec   [][]byte // its payload
	cur   []byte   // rest of the payload part that was begun
	parts [][]byte // parts after it

	v4, tcp bool
	l3Len   int    // offset of the transport header in hdr
	ipLen   uint16 // what the IP length field says beyond the payload
	l4Len   uint16 // what the transport length says beyond the payload
	size    int    // payload bytes a segment
	left    int    // payload bytes not yet handed out
	ipSum   uint16 // IPv4 header without total length, identification and checksum
	l4Sum   uint16 // pseudo-header and transport header without what varies
	ipID    uint16 // of the next segment
	seq     uint32 // of the next segment
	flags   uint8  // TCP flags of the superframe
	first   bool
}

// Reset begins a superframe. h and p are its header and what Parse found; head
// holds all its IP and transport header bytes and may go on with payload, which
// payload continues. Bytes past p's payload are ignored. The slices are borrowed
// until Next has returned false or the next Reset; head's headers are copied.
// Verdicts: those of Check, BadHdr for a frame that is no superframe, and
// Truncated if head or payload is shorter than p says.
func (s *Segmenter) Reset(h *Hdr, p *Packet, head []byte, payload [][]byte) Verdict {
	s.left = 0
	if v := h.Check(p); v != OK {
		return v
	}
	if !h.IsSuper() {
		return BadHdr
	}
	hdrLen := p.L3Len + p.L4Len
	have := len(head) - hdrLen
	if have < 0 {
		return Truncated
	}
	for _, b := range payload {
		have += len(b)
	}
	if have < p.PayloadLen {
		return Truncated
	}
	s.hdr = append(s.hdr[:0], head[:hdrLen]...)
	s.cur, s.parts = head[hdrLen:], payload
	s.v4, s.tcp = p.Version == 4, p.Proto == ProtoTCP
	s.l3Len = p.L3Len
	s.size, s.left = int(h.GSOSize), p.PayloadLen
	s.first = true
	ipLen := hdrLen
	if !s.v4 {
		ipLen -= ipv6HdrLen
	}
	s.ipLen = uint16(ipLen)   //nolint:gosec // the superframe's own field holds more
	s.l4Len = uint16(p.L4Len) //nolint:gosec // at most 60
	s.sumHeaders(p)
	return OK
}

// sumHeaders takes from the headers what varies and sums the rest once for all
// segments.
func (s *Segmenter) sumHeaders(p *Packet) {
	ip, l4 := s.hdr[:s.l3Len], s.hdr[s.l3Len:]
	if s.v4 {
		s.ipID = binary.BigEndian.Uint16(ip[4:])
		clear(ip[2:6]) // total length, identification
		clear(ip[10:12])
		s.ipSum = Sum(ip, 0)
	}
	if s.tcp {
		s.seq = binary.BigEndian.Uint32(l4[4:])
		s.flags = l4[13]
		clear(l4[4:8])
		l4[13] = 0
		clear(l4[CsumOffsetTCP : CsumOffsetTCP+2])
	} else {
		clear(l4[4:8]) // length, checksum
	}
	s.l4Sum = Sum(l4, PseudoSum(p.Src, p.Dst, p.Proto, 0))
}

// Next builds the next segment in out and reports whether there was one. What out
// points to is s's own and valid until the next call.
func (s *Segmenter) Next(out *Segment) bool {
	if s.left == 0 {
		s.drop()
		*out = Segment{}
		return false
	}
	n := min(s.left, s.size)
	s.left -= n
	size := uint16(n) //nolint:gosec // at most the GSO size
	sum := add16(s.take(n), add16(s.l4Sum, s.l4Len+size))
	if s.tcp {
		s.putTCP(size, sum)
	} else {
		s.putUDP(s.l4Len+size, sum)
	}
	s.putIP(s.ipLen + size)
	s.first = false
	*out = Segment{Head: s.hdr, Payload: s.vec, Len: len(s.hdr) + n}
	return true
}

// drop forgets the caller's bytes.
func (s *Segmenter) drop() {
	clear(s.vec)
	s.vec = s.vec[:0]
	s.cur, s.parts = nil, nil
}

// take moves the next n payload bytes to vec and returns their sum.
func (s *Segmenter) take(n int) (sum uint16) {
	s.vec = s.vec[:0]
	odd := false
	for n > 0 {
		if len(s.cur) == 0 {
			s.cur, s.parts = s.parts[0], s.parts[1:]
			continue
		}
		b := s.cur[:min(n, len(s.cur))]
		s.cur = s.cur[len(b):]
		s.vec = append(s.vec, b)
		sum = addPart(sum, Sum(b, 0), odd)
		odd = odd != (len(b)&1 == 1)
		n -= len(b)
	}
	return sum
}

// putTCP writes what differs between segments, this one of size payload bytes: FIN
// and PSH belong on the last, CWR on the first (RFC 3168, section 6.1.2).
func (s *Segmenter) putTCP(size, sum uint16) {
	tcp := s.hdr[s.l3Len:]
	flags := s.flags
	if s.left > 0 {
		flags &^= TCPFin | TCPPsh
	}
	if !s.first {
		flags &^= TCPCwr
	}
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	tcp[13] = flags
	sum = add16(sum, add16(uint16(s.seq>>16), uint16(s.seq&0xffff)))
	sum = add16(sum, uint16(flags))
	binary.BigEndian.PutUint16(tcp[CsumOffsetTCP:], ^sum)
	s.seq += uint32(size)
}

// putUDP writes the length of one datagram, which the sum holds once already, as
// the pseudo-header's.
func (s *Segmenter) putUDP(length, sum uint16) {
	udp := s.hdr[s.l3Len:]
	binary.BigEndian.PutUint16(udp[4:], length)
	binary.BigEndian.PutUint16(udp[CsumOffsetUDP:], notZero(^add16(sum, length)))
}

// putIP writes the IP length field. An IPv4 identification grows by one a segment,
// as inet_gso_segment has it, unless all share one.
func (s *Segmenter) putIP(length uint16) {
	if !s.v4 {
		binary.BigEndian.PutUint16(s.hdr[4:], length)
		return
	}
	binary.BigEndian.PutUint16(s.hdr[2:], length)
	binary.BigEndian.PutUint16(s.hdr[4:], s.ipID)
	sum := add16(s.ipSum, add16(length, s.ipID))
	binary.BigEndian.PutUint16(s.hdr[10:], ^sum)
	if !s.FixedID {
		s.ipID++
	}
}
