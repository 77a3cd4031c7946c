package offload

import (
	"bytes"
	"slices"
	"testing"
)

func TestVerifyTransport(t *testing.T) {
	noChecksum6 := unhex(goldenSuper6)
	copy(noChecksum6[46:], []byte{0, 0})
	zeroEcho := edit(goldenICMP4, 20, make([]byte, 12)...)
	tests := []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"UDP without over IPv4", edit(goldenUDP4, 26, 0, 0), true},
		{"UDP without over IPv6", noChecksum6, false},
		{"UDP short of the packet, sum of its length", sealUDP(edit(goldenUDP4, 24, 0, 9), 29), true},
		{"UDP short of the packet, sum of all", sealUDP(edit(goldenUDP4, 24, 0, 9), 31), false},
		{"partial only", unhex(goldenSuper4), false},
		{"first fragment", edit(goldenFragment4, 30, 0xff), true},
		{"another protocol", edit(goldenICMP4, 9, 50), true},
		{"all zero", zeroEcho, false}, // the sum of nothing is no right checksum
	}
	for _, tt := range tests {
		var p Packet
		if v := Parse(&p, tt.frame, len(tt.frame)); v != OK {
			t.Fatalf("%s: %v", tt.name, v)
		}
		if got := VerifyTransport(&p, [][]byte{tt.frame}); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// sealUDP makes the checksum of a UDP datagram over IPv4 right that ends at end.
func sealUDP(frame []byte, end int) []byte {
	sum := ^naiveSum(naivePseudo(frame, ProtoUDP, end-20), frame[20:26], frame[28:end])
	frame[26], frame[27] = byte(sum>>8), byte(sum)
	return frame
}

// Every single wrong byte behind the IP header is found, in every split.
func TestVerifyTransportFlips(t *testing.T) {
	for _, s := range []string{goldenSYN4, goldenUDP4, goldenTCP6, goldenExtensions6, goldenICMP4, goldenICMP6} {
		frame := unhex(s)
		var p Packet
		Parse(&p, frame, len(frame))
		for i := p.L3Len; i < len(frame); i++ {
			bad := slices.Clone(frame)
			bad[i] ^= 0x10
			if !VerifyTransport(&p, [][]byte{frame[:i], frame[i:]}) {
				t.Fatalf("%sfound wrong when cut at %d", s, i)
			}
			if VerifyTransport(&p, [][]byte{bad[:i], nil, bad[i:]}) {
				t.Fatalf("%swrong byte %d not found", s, i)
			}
		}
		if VerifyTransport(&p, [][]byte{frame[:len(frame)-1]}) {
			t.Fatalf("%sfound right without its last byte", s)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, o := range []superOpts{{size: 1}, {size: 1, udp: true}, {size: 1, v6: true}, {size: 1, v6: true, udp: true}} {
		h, frame := makeSuper(o, []byte("hello"))
		h.GSOType = GSONone
		proto := frame[9]
		if o.v6 {
			proto = frame[6]
		}
		want := sealTransport(bytes.Clone(frame), proto, int(h.CsumStart), false)
		for i := range frame {
			h, got := h, bytes.Clone(frame)
			parts := [][]byte{got[:i], nil, got[i:]}
			if !Complete(&h, parts) || !bytes.Equal(got, want) || h.Flags != 0 {
				t.Fatalf("%+v cut at %d: % x, want % x, flags %d", o, i, got, want, h.Flags)
			}
			if !Complete(&h, parts) || !bytes.Equal(got, want) {
				t.Fatalf("%+v: second call changed it", o)
			}
		}
	}
}

func TestCompleteZero(t *testing.T) {
	// The rest sums to all ones, so the checksum is zero, and zero means none.
	b := []byte{0xff, 0xff, 0, 0}
	h := Hdr{Flags: FlagNeedsCsum, CsumOffset: 2}
	if !Complete(&h, [][]byte{b}) || b[2] != 0xff || b[3] != 0xff {
		t.Errorf("% x", b)
	}
}

func TestCompleteOutside(t *testing.T) {
	for _, h := range []Hdr{
		{CsumStart: 9, CsumOffset: 0},
		{CsumStart: 20, CsumOffset: 0},
		{CsumStart: 0, CsumOffset: 9},
		{CsumStart: 0xffff, CsumOffset: 0xffff},
	} {
		h.Flags = FlagNeedsCsum
		b := make([]byte, 10)
		if Complete(&h, [][]byte{b[:9], b[9:]}) || !bytes.Equal(b, make([]byte, 10)) {
			t.Errorf("%+v: % x", h, b)
		}
	}
}
