package offload

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func TestHdrCodec(t *testing.T) {
	want := Hdr{
		Flags: FlagNeedsCsum, GSOType: GSOTCPv6 | GSOECN,
		HdrLen: 0x0102, GSOSize: 0x0304, CsumStart: 0x0506, CsumOffset: 0x0708,
	}
	wire := []byte{1, 0x84} // then the four fields in the host's order
	for _, x := range []uint16{0x0102, 0x0304, 0x0506, 0x0708} {
		wire = binary.NativeEndian.AppendUint16(wire, x)
	}
	var got Hdr
	if !got.Decode(append(wire, 0xff)) || got != want {
		t.Errorf("decoded %+v, want %+v", got, want)
	}
	b := bytes.Repeat([]byte{0xee}, HdrLen+1)
	want.Encode(b)
	if !bytes.Equal(b, append(wire, 0xee)) {
		t.Errorf("encoded % x, want % x and ee", b, wire)
	}
	if got.Decode(wire[:HdrLen-1]) {
		t.Error("decoded 9 bytes")
	}
}

func TestStrings(t *testing.T) {
	seen := map[string]bool{"unknown": true}
	for v := range NumVerdicts {
		if s := v.String(); s == "" || seen[s] {
			t.Errorf("verdict %d is %q", v, s)
		} else {
			seen[s] = true
		}
	}
	if s := NumVerdicts.String(); s != "unknown" {
		t.Errorf("no verdict is %q", s)
	}
	for typ, want := range map[GSOType]string{
		GSONone: "none", GSOTCPv4: "tcpv4", GSOTCPv6: "tcpv6", GSOUDP: "udp", GSOUDPL4: "udp_l4",
		GSOTCPv4 | GSOECN: "tcpv4+ecn", 2: "unknown", 0x20: "unknown",
	} {
		if s := typ.String(); s != want {
			t.Errorf("type %#x is %q, want %q", uint8(typ), s, want)
		}
	}
}

// read takes a frame through the inbound steps.
func read(h Hdr, frame []byte) Verdict {
	var p Packet
	if v := Parse(&p, frame, len(frame)); v != OK {
		return v
	}
	return h.Check(&p)
}

// The headers of the golden superframes.
var (
	hdrSuper4 = Hdr{
		Flags: FlagNeedsCsum, GSOType: GSOTCPv4, HdrLen: 52, GSOSize: 4, CsumStart: 20, CsumOffset: 16,
	}
	hdrSuper6 = Hdr{
		Flags: FlagNeedsCsum, GSOType: GSOUDPL4, HdrLen: 48, GSOSize: 3, CsumStart: 40, CsumOffset: 6,
	}
)

// TestTUNHeaderFacts has a row for each malformed form that a raw writer on the
// device tried. Linux 6.18 refuses some with EINVAL and takes the others; a guest
// behind vhost may send any of them.
func TestTUNHeaderFacts(t *testing.T) {
	super4, super6 := unhex(goldenSuper4), unhex(goldenSuper6)
	long := make([]byte, 70000)
	copy(long, edit(goldenSuper4, 2, 0xff, 0xff))
	big, bigFrame := makeSuper(superOpts{size: 1}, make([]byte, 3000))
	tests := []struct {
		name  string
		hdr   Hdr
		edit  func(h *Hdr)
		frame []byte
		want  Verdict
	}{
		{"good TCP", hdrSuper4, func(*Hdr) {}, super4, OK},
		{"good UDP", hdrSuper6, func(*Hdr) {}, super6, OK},

		// The kernel refuses.
		{"gso_size 0", hdrSuper4, func(h *Hdr) { h.GSOSize = 0 }, super4, BadHdr},
		{"hdr_len past the end is never read", hdrSuper4, func(h *Hdr) { h.HdrLen = 9999 }, super4, OK},
		{"csum_start past the end", hdrSuper4, func(h *Hdr) { h.CsumStart = 9999 }, super4, BadHdr},
		{"csum_offset past the end", hdrSuper4, func(h *Hdr) { h.CsumOffset = 9999 }, super4, BadHdr},
		{"bogus type", hdrSuper4, func(h *Hdr) { h.GSOType = 2 }, super4, BadGSO},
		{"TCPV6 on IPv4", hdrSuper4, func(h *Hdr) { h.GSOType = GSOTCPv6 }, super4, BadHdr},
		{"TCPV4 on IPv6", hdrSuper6, func(h *Hdr) { h.GSOType = GSOTCPv4 }, super6, BadHdr},
		{"gso_size past the payload", hdrSuper4, func(h *Hdr) { h.GSOSize = 11 }, super4, BadHdr},
		{"GSO_BY_FRAGS", hdrSuper4, func(h *Hdr) { h.GSOSize = 0xffff }, super4, BadHdr},
		{"bad IP version", hdrSuper4, func(*Hdr) {}, []byte{0x75, 0, 0, 0}, BadVersion},

		// The kernel accepts.
		{"hdr_len 0", hdrSuper4, func(h *Hdr) { h.HdrLen = 0 }, super4, OK},
		{"hdr_len 20", hdrSuper4, func(h *Hdr) { h.HdrLen = 20 }, super4, OK},
		{"GSO without NEEDS_CSUM", hdrSuper4, func(h *Hdr) { h.Flags = 0 }, super4, BadHdr},
		{"GSO with DATA_VALID instead", hdrSuper4, func(h *Hdr) { h.Flags = FlagDataValid }, super4, BadHdr},
		{"gso_size 1, 3000 segments", big, func(*Hdr) {}, bigFrame, OK},
		{"UFO on TCP", hdrSuper4, func(h *Hdr) { h.GSOType = GSOUDP }, super4, BadGSO},
		{"UFO on UDP", hdrSuper6, func(h *Hdr) { h.GSOType = GSOUDP }, super6, BadGSO},
		{"UDP_L4 on TCP", hdrSuper4, func(h *Hdr) { h.GSOType = GSOUDPL4 }, super4, BadHdr},
		{"one byte", hdrSuper4, func(*Hdr) {}, []byte{0x45}, Truncated},
		{"70 kB", hdrSuper4, func(*Hdr) {}, long, BadIP},
		{"70 kB of IPv6", hdrSuper6, func(*Hdr) {}, append(super6[:53:53], long...), BadIP},
		{"read into a short buffer", hdrSuper4, func(*Hdr) {}, super4[:50], Truncated},
	}
	for _, tt := range tests {
		h := tt.hdr
		tt.edit(&h)
		if v := read(h, tt.frame); v != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, v, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	plainTCP := Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: CsumOffsetTCP}
	plainUDP := Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: CsumOffsetUDP}
	ecn := hdrSuper4
	ecn.GSOType |= GSOECN
	ecnUDP := hdrSuper6
	ecnUDP.GSOType |= GSOECN
	whole := hdrSuper4
	whole.GSOSize = 10
	tests := []struct {
		name  string
		hdr   Hdr
		frame []byte
		want  Verdict
	}{
		{"nothing", Hdr{}, unhex(goldenTCP6), OK},
		{"leftovers without a flag", Hdr{HdrLen: 1, GSOSize: 2, CsumStart: 3, CsumOffset: 4}, unhex(goldenTCP6), OK},
		{"data valid", Hdr{Flags: FlagDataValid}, unhex(goldenICMP6), OK},
		{"flags of other features", Hdr{Flags: 4 | 8}, unhex(goldenUDP4), OK},
		{"partial TCP", plainTCP, unhex(goldenSYN4), OK},
		{"partial UDP", plainUDP, unhex(goldenUDP4), OK},
		{"TCP offset on UDP", plainTCP, unhex(goldenUDP4), BadHdr},
		{"UDP offset on TCP", plainUDP, unhex(goldenSYN4), BadHdr},
		{"start behind IPv4 options missed", plainTCP, unhex(goldenOptions4), BadHdr},
		{"partial ICMP", Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 2}, unhex(goldenICMP4), BadHdr},
		{"partial fragment", plainUDP, unhex(goldenFragment4), BadHdr},
		{"partial empty fragment", plainUDP, edit(goldenFragment4, 2, 0, 20), BadHdr},
		{"partial UDP short of the packet", plainUDP, edit(goldenUDP4, 24, 0, 9), BadHdr},
		{"ECN", ecn, unhex(goldenSuper4), OK},
		{"ECN on UDP", ecnUDP, unhex(goldenSuper6), BadHdr},
		{"ECN alone", Hdr{GSOType: GSOECN}, unhex(goldenSuper4), BadGSO},
		{"tunnel type", Hdr{GSOType: 0x20 | GSOTCPv4}, unhex(goldenSuper4), BadGSO},
		{"one segment", whole, unhex(goldenSuper4), OK},
		{"superframe of SYN", hdrSuper4, edit(goldenSuper4, 33, TCPSyn|TCPAck), BadHdr},
		{"superframe of RST", hdrSuper4, edit(goldenSuper4, 33, TCPRst|TCPAck), BadHdr},
		{"superframe of a fragment", hdrSuper4, edit(goldenSuper4, 6, 0x20, 0), BadHdr},
		{"superframe without payload", hdrSuper4, edit(goldenSuper4, 2, 0, 52), BadHdr},
	}
	for _, tt := range tests {
		if v := read(tt.hdr, tt.frame); v != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, v, tt.want)
		}
	}
}

// fault says in what way a header contradicts a frame that was parsed, "" if in
// none: the rules once more, from the frame's bytes and gVisor's parser.
func fault(h Hdr, frame []byte) string {
	p, _ := oracle(frame)
	tcp, udp := p.Proto == ProtoTCP && p.L4Len > 0, p.Proto == ProtoUDP && p.L4Len > 0
	needs := h.Flags&1 != 0
	if needs {
		switch {
		case p.Fragment:
			return "fragment"
		case int(h.CsumStart) != p.L3Len:
			return "csum_start"
		case !(tcp && h.CsumOffset == 16 || udp && h.CsumOffset == 6):
			return "csum_offset"
		case udp && be16(frame[p.L3Len+4:]) != p.Len-p.L3Len:
			return "udp length"
		}
	}
	if h.GSOType == 0 {
		return ""
	}
	switch h.GSOType {
	case 1, 0x81, 4, 0x84:
		flags := byte(0)
		if tcp {
			flags = frame[p.L3Len+13]
		}
		if !tcp || (p.Version == 6) != (h.GSOType&4 != 0) || flags&(TCPSyn|TCPRst) != 0 {
			return "type"
		}
	case 5:
		if !udp {
			return "type"
		}
	default:
		return "type"
	}
	payload := p.Len - p.L3Len - p.L4Len
	if !needs || h.GSOSize == 0 || int(h.GSOSize) > payload {
		return "gso"
	}
	return ""
}

// FuzzHdr decodes a header and checks it against the frame behind it.
func FuzzHdr(f *testing.F) {
	add := func(h Hdr, s string) {
		b := make([]byte, HdrLen)
		h.Encode(b)
		f.Add(slices.Concat(b, unhex(s)))
	}
	add(hdrSuper4, goldenSuper4)
	add(hdrSuper6, goldenSuper6)
	add(Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 16}, goldenSYN4)
	add(Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 6}, goldenUDP4)
	add(Hdr{Flags: FlagNeedsCsum, CsumStart: 56, CsumOffset: 16}, goldenExtensions6)
	add(Hdr{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 6}, goldenFragment4)
	add(Hdr{GSOType: GSOTCPv6 | GSOECN, GSOSize: 1, Flags: 1, CsumStart: 40, CsumOffset: 16}, goldenTCP6)
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hdr
		if !h.Decode(b) {
			if len(b) >= HdrLen {
				t.Fatal("not decoded")
			}
			return
		}
		var again [HdrLen]byte
		if h.Encode(again[:]); !bytes.Equal(again[:], b[:HdrLen]) {
			t.Fatalf("% x became % x", b[:HdrLen], again)
		}
		frame := b[HdrLen:]
		if len(frame) >= 20 && len(frame) >= int(frame[0]&15)*4 && frame[0]>>4 == 4 && frame[0]&15 >= 5 {
			frame = reseal4(bytes.Clone(frame))
		}
		var p Packet
		if Parse(&p, frame, len(frame)) != OK {
			return
		}
		if v, why := h.Check(&p), fault(h, frame); (v == OK) != (why == "") {
			t.Fatalf("%v, but fault %q\n%+v\n%+v", v, why, h, p)
		}
	})
}
