package offload

import (
	"net/netip"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestParse(t *testing.T) {
	a4, b4 := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("192.0.2.1")
	a6, b6 := netip.MustParseAddr("fd00:18::2"), netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name, hex string
		want      Packet
	}{
		{"syn", goldenSYN4, Packet{
			Version: 4, Proto: ProtoTCP, TCPFlags: TCPSyn, SrcPort: 40000, DstPort: 80,
			Len: 60, L3Len: 20, L4Len: 40, Src: a4, Dst: b4,
		}},
		{"IPv4 options", goldenOptions4, Packet{
			Version: 4, Proto: ProtoTCP, TCPFlags: TCPAck, SrcPort: 40000, DstPort: 80,
			Len: 46, L3Len: 24, L4Len: 20, PayloadLen: 2, Src: a4, Dst: b4,
		}},
		{"udp", goldenUDP4, Packet{
			Version: 4, Proto: ProtoUDP, SrcPort: 40000, DstPort: 53,
			Len: 31, L3Len: 20, L4Len: 8, PayloadLen: 3, Src: a4, Dst: b4,
		}},
		{"tcp over IPv6", goldenTCP6, Packet{
			Version: 6, Proto: ProtoTCP, TCPFlags: TCPPsh | TCPAck, SrcPort: 40000, DstPort: 80,
			Len: 75, L3Len: 40, L4Len: 32, PayloadLen: 3, Src: a6, Dst: b6,
		}},
		{"extension headers", goldenExtensions6, Packet{
			Version: 6, Proto: ProtoTCP, TCPFlags: TCPAck, SrcPort: 40000, DstPort: 80,
			Len: 76, L3Len: 56, L4Len: 20, Src: a6, Dst: b6,
		}},
		{"icmp", goldenICMP4, Packet{
			Version: 4, Proto: ProtoICMP, Len: 32, L3Len: 20, L4Len: 8, PayloadLen: 4, Src: a4, Dst: b4,
		}},
		{"icmpv6", goldenICMP6, Packet{
			Version: 6, Proto: ProtoICMPv6, Len: 52, L3Len: 40, L4Len: 8, PayloadLen: 4, Src: a6, Dst: b6,
		}},
		{"first fragment", goldenFragment4, Packet{
			Version: 4, Proto: ProtoUDP, Fragment: true, Len: 36, L3Len: 20, Src: a4, Dst: b4,
		}},
	}
	for _, tt := range tests {
		frame := unhex(tt.hex)
		p := Packet{Fragment: true, L4Len: 99} // leftovers of another frame
		if v := Parse(&p, frame, len(frame)); v != OK || p != tt.want {
			t.Errorf("%s: %v\n got %+v\nwant %+v", tt.name, v, p, tt.want)
		}
		// Padding, as a bridge leaves it on a short frame, changes nothing.
		if v := Parse(&p, append(slices.Clone(frame), 1, 2, 3), len(frame)+3); v != OK || p != tt.want {
			t.Errorf("%s, padded: %v\n got %+v\nwant %+v", tt.name, v, p, tt.want)
		}
		if !VerifyTransport(&p, [][]byte{frame}) {
			t.Errorf("%s: golden checksum found wrong", tt.name)
		}
	}
}

// edit returns golden packet s with the byte at off replaced and, over IPv4, its
// header checksum made right again.
func edit(s string, off int, b ...byte) []byte {
	frame := unhex(s)
	copy(frame[off:], b)
	if frame[0]>>4 == 4 && frame[0]&15 >= 5 {
		reseal4(frame)
	}
	return frame
}

func TestParseMalformed(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		want  Verdict
	}{
		{"empty", nil, Truncated},
		{"one byte", []byte{0x45}, Truncated},
		{"version 0", []byte{0}, BadVersion},
		{"version 5", edit(goldenSYN4, 0, 0x55), BadVersion},
		{"IPv4 header cut", unhex(goldenSYN4)[:19], Truncated},
		{"IPv4 options cut", unhex(goldenOptions4)[:22], Truncated},
		{"IHL 4", edit(goldenSYN4, 0, 0x44), BadIP},
		{"total length below IHL", edit(goldenOptions4, 2, 0, 23), BadIP},
		{"total length past the frame", edit(goldenSYN4, 2, 0, 61), Truncated},
		{"IPv4 checksum", slices.Replace(unhex(goldenSYN4), 11, 12, 0x73), BadIP},
		{"read into a short buffer", unhex(goldenTCP6)[:50], Truncated},
		{"IPv6 header cut", unhex(goldenTCP6)[:39], Truncated},
		{"payload length past the frame", edit(goldenTCP6, 4, 0, 36), Truncated},
		{"jumbogram", edit(goldenTCP6, 4, 0, 0), Truncated},
		{"extension header cut by the packet", edit(goldenExtensions6, 4, 0, 7), Truncated},
		{"extension header longer than the packet", edit(goldenExtensions6, 41, 255), Truncated},
		{"TCP header cut by the packet", edit(goldenSYN4, 2, 0, 39), Truncated},
		{"data offset 4", edit(goldenSYN4, 32, 0x40), BadTransport},
		{"data offset past the packet", edit(goldenSYN4, 32, 0xb0), BadTransport},
		{"UDP header cut", edit(goldenUDP4, 2, 0, 27), Truncated},
		{"UDP length 7", edit(goldenUDP4, 24, 0, 7), BadTransport},
		{"UDP length past the packet", edit(goldenUDP4, 24, 0, 12), BadTransport},
		{"ICMP header cut", edit(goldenICMP4, 2, 0, 27), Truncated},
		{"ICMPv6 header cut", edit(goldenICMP6, 4, 0, 7), Truncated},
	}
	for _, tt := range tests {
		var p Packet
		if v := Parse(&p, tt.frame, len(tt.frame)); v != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, v, tt.want)
		}
	}
}

// What is unusual and all the same good, each with what must be known of it.
func TestParseUnusual(t *testing.T) {
	type facts struct {
		proto    uint8
		fragment bool
		l3, l4   int
		payload  int
	}
	tests := []struct {
		name  string
		frame []byte
		want  facts
	}{
		{"later fragment", edit(goldenFragment4, 6, 0x00, 0x02), facts{ProtoUDP, true, 20, 0, 0}},
		{"reserved bit is no fragment", edit(goldenUDP4, 6, 0x80, 0x00), facts{ProtoUDP, false, 20, 8, 3}},
		{"UDP length short of the packet", edit(goldenUDP4, 24, 0, 9), facts{ProtoUDP, false, 20, 8, 1}},
		{"ICMPv6 in IPv4", edit(goldenICMP4, 9, ProtoICMPv6), facts{ProtoICMPv6, false, 20, 0, 0}},
		{"ESP", edit(goldenICMP4, 9, 50), facts{50, false, 20, 0, 0}},
		{"no next header", edit(goldenTCP6, 6, 59), facts{59, false, 40, 0, 0}},
		{"authentication header", edit(goldenExtensions6, 40, 51), facts{51, false, 48, 0, 0}},
		{"fragment header, first", edit(goldenExtensions6, 40, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1), facts{6, true, 56, 0, 0}},
		{"fragment header, later", edit(goldenExtensions6, 40, 44, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 8), facts{60, true, 56, 0, 0}},
		{"atomic fragment", edit(goldenExtensions6, 40, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 6), facts{6, false, 56, 20, 0}},
		{"Hop-by-Hop second", edit(goldenExtensions6, 40, 0), facts{0, false, 48, 0, 0}},
		{"experiment header", edit(goldenExtensions6, 40, 253, 0, 0, 0, 0, 0, 0, 0, 6, 99), facts{6, false, 56, 20, 0}},
		{"routing header", edit(goldenExtensions6, 6, 43), facts{6, false, 56, 20, 0}},
	}
	for _, tt := range tests {
		var p Packet
		v := Parse(&p, tt.frame, len(tt.frame))
		got := facts{p.Proto, p.Fragment, p.L3Len, p.L4Len, p.PayloadLen}
		if v != OK || got != tt.want {
			t.Errorf("%s: %v %+v, want %+v", tt.name, v, got, tt.want)
		}
	}
}

// oracle is what the stack's own header package finds in a frame.
func oracle(frame []byte) (p Packet, ok bool) {
	switch header.IPVersion(frame) {
	case 4:
		h := header.IPv4(frame)
		if !h.IsValid(len(frame)) || !h.IsChecksumValid() {
			return p, false
		}
		p = Packet{Version: 4, Proto: h.Protocol(), Len: int(h.TotalLength()), L3Len: int(h.HeaderLength())}
		p.Fragment = h.More() || h.FragmentOffset() != 0
		p.Src, _ = netip.AddrFromSlice(h.SourceAddressSlice())
		p.Dst, _ = netip.AddrFromSlice(h.DestinationAddressSlice())
	case 6:
		h := header.IPv6(frame)
		if !h.IsValid(len(frame)) {
			return p, false
		}
		p = Packet{Version: 6, Len: 40 + int(h.PayloadLength())}
		p.Src, _ = netip.AddrFromSlice(h.SourceAddressSlice())
		p.Dst, _ = netip.AddrFromSlice(h.DestinationAddressSlice())
		if !oracleExtensions(&p, h[:p.Len]) {
			return p, false
		}
	default:
		return p, false
	}
	return p, p.Fragment || oracleTransport(&p, frame[p.L3Len:p.Len])
}

func oracleExtensions(p *Packet, h header.IPv6) bool {
	it := header.MakeIPv6PayloadIterator(
		header.IPv6ExtensionHeaderIdentifier(h.NextHeader()), buffer.MakeWithData(h[40:]))
	defer it.Release()
	for first := true; ; first = false {
		next := it.NextHeaderIdentifier()
		if next == header.IPv6NoNextHeaderIdentifier || next == 0 && !first || p.Fragment {
			raw := it.AsRawHeader(true)
			p.Proto, p.L3Len = uint8(next), len(h)-int(raw.Buf.Size())
			raw.Release()
			return true
		}
		ext, _, err := it.Next()
		if err != nil {
			return false
		}
		raw, last := ext.(header.IPv6RawPayloadHeader)
		if last {
			p.Proto, p.L3Len = uint8(raw.Identifier), len(h)-int(raw.Buf.Size())
		}
		if frag, ok := ext.(header.IPv6FragmentExtHdr); ok {
			p.Fragment = !frag.IsAtomic()
		}
		ext.Release()
		if last {
			return true
		}
	}
}

func oracleTransport(p *Packet, l4 []byte) bool {
	switch {
	case p.Proto == ProtoTCP:
		if len(l4) < header.TCPMinimumSize {
			return false
		}
		h := header.TCP(l4)
		p.SrcPort, p.DstPort, p.TCPFlags = h.SourcePort(), h.DestinationPort(), uint8(h.Flags())
		p.L4Len = int(h.DataOffset())
		p.PayloadLen = len(l4) - p.L4Len
		return p.L4Len >= header.TCPMinimumSize && p.PayloadLen >= 0
	case p.Proto == ProtoUDP:
		if len(l4) < header.UDPMinimumSize {
			return false
		}
		h := header.UDP(l4)
		p.SrcPort, p.DstPort = h.SourcePort(), h.DestinationPort()
		p.L4Len, p.PayloadLen = header.UDPMinimumSize, int(h.Length())-header.UDPMinimumSize
		return p.PayloadLen >= 0 && int(h.Length()) <= len(l4)
	case p.Proto == ProtoICMP && p.Version == 4, p.Proto == ProtoICMPv6 && p.Version == 6:
		p.L4Len, p.PayloadLen = 8, len(l4)-8
		return len(l4) >= 8
	}
	return true
}

// FuzzParse compares Parse with gVisor's header package: what one accepts, the
// other does, with the same fields. A shorter head may only make it Truncated.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		goldenSYN4, goldenOptions4, goldenUDP4, goldenTCP6, goldenExtensions6,
		goldenICMP4, goldenICMP6, goldenFragment4, goldenSuper4, goldenSuper6,
	} {
		f.Add(unhex(s), uint8(128), true)
		f.Add(unhex(s), uint8(50), false)
	}
	f.Add(edit(goldenExtensions6, 40, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 6), uint8(128), false)
	f.Add(edit(goldenExtensions6, 40, 253, 0, 0, 0, 0, 0, 0, 0, 44), uint8(128), false)
	f.Add(edit(goldenExtensions6, 40, 0), uint8(128), false)
	f.Fuzz(func(t *testing.T, frame []byte, headLen uint8, reseal bool) {
		if len(frame) > ipv4MaxLen {
			return
		}
		if n := len(frame); reseal && n >= 20 && frame[0]>>4 == 4 && frame[0]&15 >= 5 && n >= int(frame[0]&15)*4 {
			frame = reseal4(slices.Clone(frame))
		}
		var got, part Packet
		v := Parse(&got, frame, len(frame))
		want, ok := oracle(frame)
		if ok != (v == OK) || ok && got != want {
			t.Fatalf("%v %+v\noracle %v %+v", v, got, ok, want)
		}
		head := frame[:min(len(frame), int(headLen))]
		pv := Parse(&part, head, len(frame))
		fits := v == OK && got.L3Len+got.L4Len <= len(head)
		if !(fits && pv == OK && part == got || !fits && pv == Truncated || v != OK && pv == v) {
			t.Fatalf("head of %d: %v %+v\nwhole: %v %+v", len(head), pv, part, v, got)
		}
	})
}
