package link_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev/tuntest"
)

// ack is an acknowledgment of n by a client's port, or a segment with payload.
func ack(port uint16, n uint32, payload ...byte) []byte {
	p := tcpPacket(client4, server4, payload)
	tcp := header.TCP(p[header.IPv4MinimumSize:])
	tcp.SetSourcePort(port)
	tcp.SetAckNumber(n)
	tcp.SetChecksum(0)
	tcp.SetChecksum(^offload.Sum(tcp, offload.PseudoSum(client4, server4, uint8(header.TCPProtocolNumber), len(tcp))))
	return p
}

// TestOutdatedACKs: of a batch of acknowledgments on a device that delivers frames one
// by one, the stack gets those that say something, in their order.
func TestOutdatedACKs(t *testing.T) {
	dev := tuntest.New(tuntest.Options{NoTSO: true})
	up := &sink{got: make(chan []byte, 64)}
	ep := link.New(link.Options{Device: dev})
	ep.Attach(up)
	sent := [][]byte{
		ack(1, 100), ack(1, 200), ack(1, 300), // one
		ack(1, 300), ack(1, 300), // each is a duplicate
		ack(2, 100),                                // another flow's
		ack(1, 400), ack(1, 500, 'x'), ack(1, 600), // data is none
		ack(1, 700), // what is held of its flow is the data: nothing overtakes it
	}
	want := sent[2:]
	for _, p := range sent {
		dev.Send(append(make([]byte, tuntest.HdrLen), p...))
	}
	done := make(chan error, 1)
	go func() { done <- ep.Run(context.Background()) }()
	for i, w := range want {
		select {
		case got := <-up.got:
			if !bytes.Equal(got, w) {
				t.Errorf("packet %d is\n%x, want\n%x", i, got, w)
			}
		case <-time.After(within):
			t.Fatalf("%d of %d packets came", i, len(want))
		}
	}
	_ = dev.Close()
	<-done
	if rx := ep.Stats().Queues[0].Rx; rx.Outdated != uint64(len(sent)-len(want)) || rx.Frames != uint64(len(sent)) {
		t.Errorf("%d frames, %d outdated; want %d and %d", rx.Frames, rx.Outdated, len(sent), len(sent)-len(want))
	}
}

// TestLargerMTU: what a device without TSO delivers after its MTU has grown is read
// whole.
func TestLargerMTU(t *testing.T) {
	r := newRig(t, tuntest.Options{MTU: 1500, NoTSO: true})
	r.deliver(t, offload.Hdr{}, tcpPacket(client4, server4, random(100)))
	r.ep.SetMTU(9000)
	r.deliver(t, offload.Hdr{}, tcpPacket(client4, server4, random(200))) // into what was made before
	p := tcpPacket(client4, server4, random(8900))
	if got := r.deliver(t, offload.Hdr{}, p); !bytes.Equal(got, p) {
		t.Errorf("%d bytes came, want %d", len(got), len(p))
	}
}
