package offload

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestSum(t *testing.T) {
	tests := []struct {
		name    string
		b       []byte
		initial uint16
		want    uint16
	}{
		{"nothing", nil, 0, 0},
		{"initial alone", nil, 0x1234, 0x1234},
		{"RFC 1071, section 3", []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0, 0xddf2},
		{"odd byte is the high one", []byte{0xab}, 0, 0xab00},
		{"carry comes around", []byte{0xff, 0xff, 0x00, 0x01}, 0, 1},
		{"fold carries four times", []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, 0x0100},
		{"carry of initial", []byte{0xff, 0xff}, 2, 2},
		{"all ones are a zero", bytes.Repeat([]byte{0xff}, 65535), 0xffff, 0xff00},
	}
	for _, tt := range tests {
		if got := Sum(tt.b, tt.initial); got != tt.want {
			t.Errorf("%s: %#04x, want %#04x", tt.name, got, tt.want)
		}
	}
	// Every length around the block sizes, with bytes that carry often.
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 600)
	for i := range b {
		b[i] = byte(r.Uint32()) | 0xc0
	}
	for n := range b {
		if got, want := Sum(b[:n], 0xfedc), naiveSum([]byte{0xfe, 0xdc}, b[:n]); got != want {
			t.Fatalf("%d bytes: %#04x, want %#04x", n, got, want)
		}
	}
}

func TestSumParts(t *testing.T) {
	b := []byte("0123456789")
	parts := [][]byte{b[:3], nil, b[3:4], b[4:]}
	for off := range b {
		for n := range len(b) - off + 1 {
			want := naiveSum(b[off : off+n])
			if got, ok := SumParts(parts, off, n, 0); !ok || got != want {
				t.Errorf("[%d:%d]: %#04x %v, want %#04x", off, off+n, got, ok, want)
			}
		}
	}
	if _, ok := SumParts(parts, 4, 7, 0); ok {
		t.Error("found 11 bytes in 10")
	}
}

func TestPseudoSum(t *testing.T) {
	tests := []struct {
		src, dst string
		proto    uint8
		length   int
		want     uint16
	}{
		{"198.18.0.2", "192.0.2.1", ProtoTCP, 42, 0x8846}, // goldenSuper4's field
		{"fd00:18::2", "2001:db8::1", ProtoUDP, 13, 0x2af3},
		{"0.0.0.0", "0.0.0.0", 0, 65535, 0xffff},
		{"255.255.255.255", "255.255.255.255", 255, 65535, 0x00ff},
		{"::", "::", ProtoTCP, 65535 + 1, 7}, // IPv6 has 32 bits for the length
		{"::ffff:1.2.3.4", "::", 0, 0, 0x0406},
	}
	for _, tt := range tests {
		got := PseudoSum(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst), tt.proto, tt.length)
		if got != tt.want {
			t.Errorf("%s > %s, %d bytes of %d: %#04x, want %#04x", tt.src, tt.dst, tt.length, tt.proto, got, tt.want)
		}
	}
}

// FuzzChecksum compares Sum and SumParts with the naive sum, for every way to cut
// a short input in two, for a random one in many, and for every part of it.
func FuzzChecksum(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte{1, 0, 3}, uint16(0), uint16(2), uint16(7))
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte{129, 7}, uint16(0xffff), uint16(1), uint16(255))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 40), []byte{}, uint16(1), uint16(0), uint16(320))
	f.Fuzz(func(t *testing.T, b, cuts []byte, initial, off, n uint16) {
		first := []byte{byte(initial >> 8), byte(initial)}
		want := naiveSum(first, b)
		if got := Sum(b, initial); got != want {
			t.Fatalf("whole: %#04x, want %#04x", got, want)
		}
		for i := range min(len(b), 200) {
			if got, ok := SumParts([][]byte{b[:i], b[i:]}, 0, len(b), initial); !ok || got != want {
				t.Fatalf("cut at %d: %#04x %v, want %#04x", i, got, ok, want)
			}
		}
		lo := min(int(off), len(b))
		hi := min(lo+int(n), len(b))
		got, ok := SumParts(split(b, cuts), lo, hi-lo, initial)
		if want := naiveSum(first, b[lo:hi]); !ok || got != want {
			t.Fatalf("[%d:%d] cut by %v: %#04x %v, want %#04x", lo, hi, cuts, got, ok, want)
		}
	})
}
