package offload

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// flatten copies a segment into one frame.
func flatten(seg *Segment) []byte {
	return slices.Concat(append([][]byte{seg.Head}, seg.Payload...)...)
}

// segments cuts a superframe whose head is its first bytes, as one frame or with
// the payload in parts.
func segments(t *testing.T, h Hdr, frame []byte, head int, cuts []byte) (out [][]byte) {
	t.Helper()
	var p Packet
	if v := Parse(&p, frame, len(frame)); v != OK {
		t.Fatalf("parse: %v", v)
	}
	var s Segmenter
	if v := s.Reset(&h, &p, frame[:head], split(frame[head:], cuts)); v != OK {
		t.Fatalf("reset: %v", v)
	}
	var seg Segment
	for s.Next(&seg) {
		b := flatten(&seg)
		if len(b) != seg.Len {
			t.Fatalf("%d bytes, Len %d", len(b), seg.Len)
		}
		out = append(out, b)
	}
	if s.Next(&seg) || seg.Head != nil || s.cur != nil || s.parts != nil {
		t.Fatal("not over, or still holding the caller's bytes")
	}
	return out
}

func TestSegmenterGolden(t *testing.T) {
	tests := []struct {
		name  string
		hdr   Hdr
		super string
		want  []string
	}{
		{"tcpv4", hdrSuper4, goldenSuper4, goldenSegments4},
		{"udp_l4 over IPv6", hdrSuper6, goldenSuper6, goldenSegments6},
	}
	for _, tt := range tests {
		frame := unhex(tt.super)
		for head := int(tt.hdr.HdrLen); head <= len(frame); head++ {
			got := segments(t, tt.hdr, frame, head, []byte{0, 1, 2})
			if len(got) != len(tt.want) {
				t.Fatalf("%s: %d segments, want %d", tt.name, len(got), len(tt.want))
			}
			for i := range got {
				if want := unhex(tt.want[i]); !bytes.Equal(got[i], want) {
					t.Errorf("%s %d, head of %d:\n got % x\nwant % x", tt.name, i, head, got[i], want)
				}
			}
		}
		if !bytes.Equal(frame, unhex(tt.super)) {
			t.Errorf("%s: the superframe was changed", tt.name)
		}
	}
}

func TestSegmenterReset(t *testing.T) {
	frame := unhex(goldenSuper4)
	plain, udp := hdrSuper4, hdrSuper4
	plain.GSOType, udp.GSOType = GSONone, GSOUDP
	tests := []struct {
		name          string
		hdr           Hdr
		head, payload []byte
		want          Verdict
	}{
		{"good", hdrSuper4, frame[:52], frame[52:], OK},
		{"padding is left out", hdrSuper4, frame[:52], append(frame[52:62:62], 9, 9), OK},
		{"plain frame", plain, frame[:52], frame[52:], BadHdr},
		{"ufo", udp, frame[:52], frame[52:], BadGSO},
		{"headers cut", hdrSuper4, frame[:51], frame[51:], Truncated},
		{"payload cut", hdrSuper4, frame[:52], frame[52:61], Truncated},
		{"no payload", hdrSuper4, frame[:52], nil, Truncated},
	}
	var s Segmenter
	for _, tt := range tests {
		var p Packet
		if v := Parse(&p, frame, len(frame)); v != OK {
			t.Fatal(v)
		}
		if v := s.Reset(&tt.hdr, &p, tt.head, [][]byte{tt.payload}); v != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, v, tt.want)
		}
		var seg Segment
		n := 0
		for s.Next(&seg) {
			n += seg.Len - 52
		}
		if want := map[bool]int{true: 10}[tt.want == OK]; n != want {
			t.Errorf("%s: %d payload bytes, want %d", tt.name, n, want)
		}
	}
}

// A superframe that was refused leaves nothing of the one before.
func TestSegmenterRefusedAfterBegun(t *testing.T) {
	frame := unhex(goldenSuper4)
	var p Packet
	Parse(&p, frame, len(frame))
	var s Segmenter
	var seg Segment
	h := hdrSuper4
	if s.Reset(&h, &p, frame, nil) != OK || !s.Next(&seg) {
		t.Fatal("no segment")
	}
	h.GSOSize = 0
	if v := s.Reset(&h, &p, frame, nil); v != BadHdr || s.Next(&seg) {
		t.Errorf("%v, and a segment", v)
	}
}

// Segments that are to share an identification do, under a right header checksum.
func TestSegmenterFixedID(t *testing.T) {
	h, frame := makeSuper(superOpts{size: 5, flags: TCPAck, id: 0xffff}, make([]byte, 15))
	var p Packet
	Parse(&p, frame, len(frame))
	s := Segmenter{FixedID: true}
	s.Reset(&h, &p, frame, nil)
	var seg Segment
	for s.Next(&seg) {
		if id := be16(seg.Head[4:]); id != 0xffff || naiveSum(seg.Head[:20]) != 0xffff {
			t.Errorf("identification %#x: % x", id, seg.Head)
		}
	}
}

// segmentFault looks for what is wrong with segment i of a superframe cut at off,
// the plain way. last says that no segment follows.
func segmentFault(o superOpts, b []byte, i, off int, last bool) string {
	l3, proto := 20+4*o.ipOptions, byte(ProtoTCP)
	if o.udp {
		proto = ProtoUDP
	}
	if o.v6 {
		l3 = 40 + 8*o.ipOptions
		if be16(b[4:]) != len(b)-40 {
			return "payload length"
		}
	} else {
		switch {
		case be16(b[2:]) != len(b):
			return "total length"
		case uint16(be16(b[4:])) != o.id+uint16(i):
			return "identification"
		case naiveSum(b[:l3]) != 0xffff:
			return "header checksum"
		}
	}
	if naiveSum(naivePseudo(b, proto, len(b)-l3), b[l3:]) != 0xffff {
		return "transport checksum"
	}
	l4 := b[l3:]
	if o.udp {
		switch {
		case be16(l4[4:]) != len(l4):
			return "udp length"
		case be16(l4[6:]) == 0:
			return "no udp checksum"
		}
		return ""
	}
	want := o.flags
	if i > 0 {
		want &^= 0x80
	}
	if !last {
		want &^= 0x09
	}
	switch {
	case be32(l4[4:]) != o.seq+uint32(off):
		return "seq"
	case l4[13] != want:
		return fmt.Sprintf("flags %#x, want %#x", l4[13], want)
	}
	return ""
}

func checkSegments(t *testing.T, o superOpts, payload, cuts []byte) {
	t.Helper()
	h, frame := makeSuper(o, payload)
	hdrLen := len(frame) - len(payload)
	var got []byte
	segs := segments(t, h, frame, hdrLen, cuts)
	for i, b := range segs {
		last := i == len(segs)-1
		if n := len(b) - hdrLen; n > int(o.size) || n != int(o.size) && !last || n == 0 {
			t.Fatalf("%+v: segment %d carries %d bytes", o, i, n)
		}
		if why := segmentFault(o, b, i, len(got), last); why != "" {
			t.Fatalf("%+v: segment %d: %s\n% x", o, i, why, b)
		}
		got = append(got, b[hdrLen:]...)
	}
	if !bytes.Equal(got, payload) {
		t.Fatalf("%+v: payload differs", o)
	}
}

func TestSegmenter(t *testing.T) {
	full := make([]byte, 65535-20-20-40)
	for i := range full {
		full[i] = byte(i * 31)
	}
	tests := []struct {
		name string
		opts superOpts
		n    int
	}{
		{"largest", superOpts{size: 1448, flags: TCPAck | TCPPsh, seq: 1 << 31}, len(full)},
		{"one byte each", superOpts{size: 1, flags: TCPAck | TCPFin, id: 65000}, 3000},
		{"longest headers", superOpts{size: 100, ipOptions: 10, options: 10, flags: TCPAck | TCPCwr | TCPEce}, 999},
		{"extension headers", superOpts{v6: true, size: 100, ipOptions: 30, options: 3, flags: TCPAck}, 999},
		{"exact multiple", superOpts{v6: true, size: 100, flags: TCPAck | TCPFin | TCPPsh | TCPCwr}, 500},
		{"one segment", superOpts{size: 500, flags: TCPAck | TCPFin | TCPPsh | TCPCwr}, 500},
		{"datagrams", superOpts{udp: true, size: 1472, id: 7}, len(full)},
		{"datagrams over IPv6", superOpts{v6: true, udp: true, size: 1, ipOptions: 1}, 300},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkSegments(t, tt.opts, full[:tt.n], []byte{1, 0, 255, 3})
		})
	}
}

// A datagram whose checksum comes out as zero carries the other zero.
func TestSegmenterZeroChecksum(t *testing.T) {
	o := superOpts{udp: true, size: 2}
	h, frame := makeSuper(o, []byte{0, 0, 0, 0})
	csum := segments(t, h, frame, 28, nil)[0][26:28]
	checkSegments(t, o, append([]byte{0, 0}, csum...), nil)
}

// FuzzSegment checks the segments of any superframe against its description, with
// sums and fields computed the plain way.
func FuzzSegment(f *testing.F) {
	f.Add([]byte("abcdefghij"), []byte{3, 0, 1}, uint16(4), uint8(0), uint8(0x33), uint8(0x99), uint32(1<<32-4), uint16(65535))
	f.Add([]byte("abcde"), []byte{}, uint16(3), uint8(3), uint8(0x10), uint8(0), uint32(0), uint16(0))
	f.Add(bytes.Repeat([]byte{0xff}, 3000), []byte{1, 254, 9}, uint16(1448), uint8(1), uint8(0), uint8(0x18), uint32(7), uint16(1))
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte{7}, uint16(1), uint8(2), uint8(0xaa), uint8(0), uint32(7), uint16(1))
	f.Fuzz(func(t *testing.T, payload, cuts []byte, size uint16, kind, options, flags uint8, seq uint32, id uint16) {
		o := superOpts{
			v6: kind&1 != 0, udp: kind&2 != 0, ipOptions: int(options>>4) % 11, options: int(options&15) % 11,
			flags: flags &^ (TCPSyn | TCPRst), seq: seq, id: id, size: size,
		}
		if size == 0 || len(payload) < int(size) || len(payload) > 60000 {
			return
		}
		checkSegments(t, o, payload, cuts)
	})
}
