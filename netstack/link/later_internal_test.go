package link

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestLaterQueue: packets of all lengths come out as they went in, over many chunks,
// and the memory goes when the last has.
func TestLaterQueue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l later
	var want [][]byte
	take := func() {
		t.Helper()
		if got := l.next(); !bytes.Equal(got, want[0]) {
			t.Fatalf("%x came out, want %x", got, want[0])
		}
		want = want[1:]
	}
	for range 50_000 {
		packet := make([]byte, 40+rnd.IntN(headMax-40))
		for i := range packet {
			packet[i] = byte(rnd.Uint32())
		}
		l.add(packet)
		want = append(want, packet)
		if rnd.IntN(3) == 0 {
			take()
		}
	}
	if len(l.chunks) < 10 || l.n != len(want) {
		t.Fatalf("%d chunks, %d packets; want %d packets", len(l.chunks), l.n, len(want))
	}
	for len(want) > 0 {
		take()
	}
	if l.n != 0 || l.chunks != nil || l.spare != nil {
		t.Errorf("%d packets, %d chunks are left", l.n, len(l.chunks))
	}
}
