package offload

import (
	"strconv"
	"testing"
)

// TestAllocs holds every hot path to no allocation.
func TestAllocs(t *testing.T) {
	frame := unhex(goldenExtensions6)
	h, super := makeSuper(superOpts{size: 1448, flags: TCPAck}, make([]byte, 60000))
	parts := [][]byte{super[:1000], super[1000:]}
	scratch := [][]byte{make([]byte, 39), make([]byte, 999)}
	wire := make([]byte, HdrLen)
	var p, sp Packet
	Parse(&sp, super, len(super))
	var s Segmenter
	var seg Segment
	tests := []struct {
		name string
		run  func() bool
	}{
		{"codec", func() bool { h.Encode(wire); return h.Decode(wire) }},
		{"parse", func() bool { return Parse(&p, frame, len(frame)) == OK }},
		{"check", func() bool { return h.Check(&sp) == OK }},
		{"verify", func() bool { return !VerifyTransport(&sp, parts) }},
		{"complete", func() bool { h := h; return Complete(&h, scratch) }},
		{"segment", func() bool {
			ok := s.Reset(&h, &sp, super[:1000], parts[1:]) == OK
			for s.Next(&seg) {
			}
			return ok
		}},
	}
	for _, tt := range tests {
		n := testing.AllocsPerRun(100, func() {
			if !tt.run() {
				t.Fatal(tt.name)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 40, 1448, 65483} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(buf, 0)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bm := range []struct{ name, hex string }{
		{"TCPv4", goldenSuper4}, {"TCPv6", goldenTCP6}, {"Extensions", goldenExtensions6}, {"UDPv4", goldenUDP4},
	} {
		b.Run(bm.name, func(b *testing.B) {
			frame := unhex(bm.hex)
			var p Packet
			for b.Loop() {
				Parse(&p, frame, len(frame))
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	frame := unhex(goldenSuper4)
	var p Packet
	Parse(&p, frame, len(frame))
	h := hdrSuper4
	for b.Loop() {
		h.Check(&p)
	}
}

func BenchmarkVerifyTransport(b *testing.B) {
	for _, n := range []int{0, 1448, 65000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			_, frame := makeSuper(superOpts{}, make([]byte, n))
			var p Packet
			Parse(&p, frame, len(frame))
			parts := [][]byte{frame}
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				VerifyTransport(&p, parts)
			}
		})
	}
}

func BenchmarkSegment(b *testing.B) {
	h, frame := makeSuper(superOpts{size: 1448, options: 3, flags: TCPAck}, make([]byte, 65000))
	var p Packet
	Parse(&p, frame, len(frame))
	var s Segmenter
	var seg Segment
	parts := [][]byte{frame[52:33000], frame[33000:]}
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		s.Reset(&h, &p, frame[:52], parts)
		for s.Next(&seg) {
		}
	}
}
