package netstack_test

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/netstack"
)

// TestACKBehindWindow: a client that has sent up to the edge of its window, of which a
// scaled window then shows nothing any more, acknowledges from behind it, as Linux does
// (tcp_acceptable_seq), and must be heard: if the handler reads only when it has
// written, nobody else would open the window.
func TestACKBehindWindow(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		const (
			scale   = 7
			left    = 48       // bytes of window that a unit of 128 does not show
			wanted  = 20 << 10 // of the answer: more than the first flight
			segSize = 500
		)
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		r.send(segment{tuple: tu, flags: syn, seq: 1000, opts: []byte{1, 3, 3, scale}}.frame())
		sa := r.recvFlags(tu, syn|ack)
		seq, next := uint32(1001), sa.seq+1
		r.send(segment{tuple: tu, flags: ack, seq: seq, ack: next}.frame())
		conn := <-a.conns

		edge := seq + uint32(sa.window)
		for window := -1; window != 0 || edge-seq != left; {
			n := min(segSize, edge-seq)
			if edge-seq <= segSize+left {
				n = edge - seq - left
			}
			r.send(segment{tuple: tu, flags: ack, seq: seq, ack: next, payload: make([]byte, n)}.frame())
			seq += n
			p := r.recv("an acknowledgment", func(p packet) bool { return p.ack == seq })
			window = int(p.window)
			edge = max(edge, p.ack+uint32(window)<<scale)
		}
		r.send(segment{tuple: tu, flags: ack, seq: seq, ack: next, payload: make([]byte, left)}.frame())

		if n, err := conn.WriteFrom(bytes.NewReader(make([]byte, wanted))); n != wanted || err != nil {
			t.Fatal(n, err)
		}
		for got := uint32(0); got < wanted; {
			p := r.recv("more of the answer", func(p packet) bool {
				return header.TCPFlags(p.TCPFlags)&ack != 0 && len(p.payload) > 0 && p.seq == next
			})
			next += uint32(len(p.payload))
			got += uint32(len(p.payload))
			r.send(segment{tuple: tu, flags: ack, seq: edge, ack: next}.frame())
		}
		conn.Abort()
	})
}
