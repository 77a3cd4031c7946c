package minisock

import (
	"encoding/binary"

	"github.com/tungate/tungate/offload"
)

// Segment is a TCP packet or superframe, as far as this package looks at it. IP and
// TCP are the caller's memory and written to while the call lasts; nothing of them
// is kept.
type Segment struct {
	IP  []byte // the IP header; what stands between it and TCP does not matter
	TCP []byte // the TCP header with its options, nothing else
	// Payload is the length of what follows it.
	Payload int
	// Partial says that the checksum field need not be kept right: it holds the
	// pseudo-header's sum alone (NEEDS_CSUM), or nobody will look at it.
	Partial bool
	// Queue is the one that an inbound packet came by.
	Queue uint16
	// Pressed says that packets come faster than they are served: answers that
	// can be done without are to be saved.
	Pressed bool
	// Later says that the caller can show a RST again: the verdict on one that ends
	// a connection is then Later.
	Later bool
}

// FromPacket describes a frame that offload.Parse found to be TCP and no fragment.
// head holds all its headers; hdr is what stood before it.
func FromPacket(p *offload.Packet, hdr *offload.Hdr, head []byte, queue uint16) Segment {
	return Segment{
		IP:      head[:p.L3Len],
		TCP:     head[p.L3Len : p.L3Len+p.L4Len],
		Payload: p.PayloadLen,
		Partial: hdr.Flags&offload.FlagNeedsCsum != 0,
		Queue:   queue,
	}
}

// TCP flags, less PSH and those of ECN, which no decision hangs on.
const (
	fin = offload.TCPFin
	syn = offload.TCPSyn
	rst = offload.TCPRst
	ack = offload.TCPAck
	urg = offload.TCPUrg

	decisive = fin | syn | rst | ack | urg
)

// possible has a bit for each set of decisive flags that a TCP sends (RFC 9293,
// sections 3.5 to 3.10; Linux's nf_conntrack has the same list).
const possible uint64 = 1<<syn | 1<<(syn|urg) | 1<<(syn|ack) | 1<<rst | 1<<(rst|ack) |
	1<<ack | 1<<(ack|urg) | 1<<(fin|ack) | 1<<(fin|ack|urg)

// segment is a Segment that was read.
type segment struct {
	key      key
	tcp      []byte
	partial  bool
	pressed  bool
	later    bool
	flags    uint8 // the decisive ones
	wnd      uint16
	queue    uint16
	ts       int // offset of the timestamp option's values in tcp, 0 if there is none
	seq, ack uint32
	payload  uint32
}

const tcpHdrLen = 20

// read takes s apart. outbound says that the gateway is the source.
func (g *segment) read(s *Segment, outbound bool) bool {
	t := s.TCP
	if len(t) < tcpHdrLen || len(s.IP) < 20 || s.IP[0]>>4 != 4 && len(s.IP) < 40 {
		return false
	}
	g.key.of(s.IP, t, outbound)
	g.tcp, g.partial, g.pressed, g.later, g.queue = t, s.Partial, s.Pressed, s.Later, s.Queue
	g.flags, g.wnd = t[13]&decisive, binary.BigEndian.Uint16(t[14:])
	g.seq, g.ack = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:])
	g.payload = uint32(s.Payload) //nolint:gosec // at most 64 KiB, by an IP header
	g.ts = findTS(t)
	return true
}

func (g *segment) odd() bool { return possible>>g.flags&1 == 0 }

// end is the sequence number behind the segment: SYN and FIN take one each.
func (g *segment) end() uint32 {
	return g.seq + g.payload + uint32(g.flags>>1&1) + uint32(g.flags&fin)
}

// bare reports whether the segment says nothing but what its header says.
func (g *segment) bare() bool { return g.payload == 0 && g.flags&fin == 0 }

func (g *segment) tsVal() uint32 { return binary.BigEndian.Uint32(g.tcp[g.ts:]) }

func (g *segment) tsEcr() uint32 { return binary.BigEndian.Uint32(g.tcp[g.ts+4:]) }

// TCP options (IANA).
const (
	optEnd   = 0
	optNop   = 1
	optMSS   = 2 // RFC 9293, section 3.7.1
	optWS    = 3 // RFC 7323, section 2.2
	optSACKs = 4 // permitted; RFC 2018, section 2
	optSACK  = 5 // section 3
	optTS    = 8 // RFC 7323, section 3.2
)

// tsLayout is how nearly everybody pads the timestamp option (RFC 7323, appendix A).
const tsLayout = optNop<<24 | optNop<<16 | optTS<<8 | 10

// findTS returns the offset of a timestamp option's two values in a TCP header.
func findTS(t []byte) int {
	if len(t) == tcpHdrLen {
		return 0
	}
	if len(t) >= 32 && binary.BigEndian.Uint32(t[20:]) == tsLayout {
		return 24
	}
	for i := tcpHdrLen; ; {
		kind, next := option(t, i)
		switch {
		case next == 0:
			return 0
		case kind == optTS && next-i == 10:
			return i + 2
		}
		i = next
	}
}

// option returns the option at offset i of a header and the offset of the one behind
// it, 0 at the end of the list or where it is broken.
func option(t []byte, i int) (kind byte, next int) {
	if i >= len(t) || t[i] == optEnd {
		return 0, 0
	}
	if t[i] == optNop {
		return optNop, i + 1
	}
	if i+1 >= len(t) || t[i+1] < 2 || i+int(t[i+1]) > len(t) {
		return 0, 0
	}
	return t[i], i + int(t[i+1])
}

// SYNOptions is what the options of a SYN say.
type SYNOptions struct {
	MSS         uint16 // 0 if it does not say
	WindowScale int8   // -1 if it does not scale
	SACK        bool
	TS          bool
	TSVal       uint32 // valid iff TS
	TSEcr       uint32 // valid iff TS
}

// ReadSYN reads the options of a SYN's TCP header.
func ReadSYN(tcp []byte) SYNOptions {
	s := SYNOptions{WindowScale: -1}
	for i := tcpHdrLen; ; {
		kind, next := option(tcp, i)
		if next == 0 {
			return s
		}
		switch n := next - i; {
		case kind == optMSS && n == 4:
			s.MSS = binary.BigEndian.Uint16(tcp[i+2:])
		case kind == optWS && n == 3:
			s.WindowScale = int8(min(tcp[i+2], 14)) // more is taken for 14: RFC 7323, section 2.3
		case kind == optSACKs && n == 2:
			s.SACK = true
		case kind == optTS && n == 10:
			s.TS = true
			s.TSVal, s.TSEcr = binary.BigEndian.Uint32(tcp[i+2:]), binary.BigEndian.Uint32(tcp[i+6:])
		}
		i = next
	}
}

// append writes the options as Linux orders them (tcp_options_write).
func (s *SYNOptions) append(b []byte) []byte {
	b = append(b, optMSS, 4, byte(s.MSS>>8), byte(s.MSS&0xff))
	switch {
	case s.SACK && s.TS:
		b = append(b, optSACKs, 2)
	case s.TS:
		b = append(b, optNop, optNop)
	case s.SACK:
		b = append(b, optNop, optNop, optSACKs, 2)
	}
	if s.TS {
		b = append(b, optTS, 10)
		b = binary.BigEndian.AppendUint32(b, s.TSVal)
		b = binary.BigEndian.AppendUint32(b, s.TSEcr)
	}
	if s.WindowScale >= 0 {
		b = append(b, optNop, optWS, 3, byte(s.WindowScale))
	}
	return b
}
