package link

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/tundev"
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

// TestLaterGivesWay: what is kept is served behind the next batch, and at once when there
// is none, though the last one was full.
func TestLaterGivesWay(t *testing.T) {
	flows, err := minisock.New(minisock.Options{}, listener{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	frame := segment(0, 0)
	header.TCP(frame[hdrLen+header.IPv4MinimumSize:]).SetFlags(uint8(header.TCPFlagRst))
	e := New(Options{Device: &endless{frame: frame, features: tundev.Features{VnetHdr: true, Checksum: true}}, Flows: flows, Loop: l})
	e.Attach(nobody{})
	q := e.device.Load().queues[0]
	defer q.receiver.release()
	served := func() uint64 { return flows.Stats().Counters[minisock.UnknownRST] }
	full := func() { q.begin() } // and no sign of the end
	q.later.add(frame[hdrLen : hdrLen+header.IPv4MinimumSize+header.TCPMinimumSize])
	for range 3 {
		full()
		q.later.serve()
		if served() != 0 {
			t.Fatal("served before the next batch")
		}
	}
	q.later.serve()
	if served() != 1 || q.press.left {
		t.Errorf("%d served where no batch came", served())
	}
	// The loop ends, with what was posted.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
}
