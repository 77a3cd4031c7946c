package netstack_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

func TestNearBuffer(t *testing.T) {
	const kib = 1 << 10
	for flows, want := range map[int64]int64{0: 512 * kib, 1: 512 * kib, 8: 512 * kib, 16: 256 * kib, 32: 128 * kib, 1000: 128 * kib} {
		if got := netstack.NearBuffer(flows); got != want {
			t.Errorf("%d flows have %d bytes each, want %d", flows, got, want)
		}
	}
}

// TestSendBuffer: the buffer of a flow that carries much over a near path is bounded,
// that of one over a long path is not.
func TestSendBuffer(t *testing.T) {
	for _, far := range []bool{false, true} {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		tu := tuple4(40000)
		path := func() { // takes its time, if it is long
			if far {
				<-time.After(3 * time.Millisecond)
			}
		}
		r.send(segment{tuple: tu, flags: syn, seq: 1000}.frame())
		seq, next := uint32(1001), r.recvFlags(tu, syn|ack).seq+1
		path()
		r.send(segment{tuple: tu, flags: ack, seq: seq, ack: next}.frame())
		c := <-a.conns
		b := newBell()
		c.SetNotifier(b)
		const total = 2 << 20
		written := make(chan error, 1)
		go func() { written <- writeAll(c, b, total) }()
		for end := next + total; next != end; {
			p := r.recv("data", func(p packet) bool { return len(p.payload) > 0 })
			if p.seq != next {
				continue // again
			}
			next += uint32(len(p.payload))
			path()
			r.send(segment{tuple: tu, flags: ack, seq: seq, ack: next}.frame())
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if n := r.s.Bulk(); n != 1 {
			t.Errorf("%d bulk flows, want 1", n)
		}
		if bound, size := netstack.SendBuffer(c); far != (bound == 0) || bound != 0 && bound != size {
			t.Errorf("far %v: bounded to %d, a buffer of %d bytes", far, bound, size)
		}
		c.Abort()
		if n := r.s.Bulk(); n != 0 {
			t.Errorf("%d bulk flows after the end", n)
		}
	}
}

// writeAll writes n bytes as there is room.
func writeAll(c flow.Conn, b *bell, n int) error {
	for n > 0 {
		m, err := c.WriteFrom(bytes.NewReader(make([]byte, min(n, 64<<10))))
		n -= int(m)
		if errors.Is(err, flow.ErrWouldBlock) {
			<-b.c
		} else if err != nil {
			return err
		}
	}
	return nil
}

// TestFirstBuffers: buffers begin with what is asked for, but not above their bounds, and
// the first window is half of what there is for the client, or 20 segments.
func TestFirstBuffers(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		for _, tc := range []struct {
			tcp    netstack.TCPOptions
			window uint16
			send   int64
		}{
			{netstack.TCPOptions{}, 20 * 1440, 32 << 10},
			{netstack.TCPOptions{FirstReceiveBuffer: 16 << 10, FirstSendBuffer: 8 << 10}, 8 << 10, 8 << 10},
			{netstack.TCPOptions{ReceiveBuffer: 32 << 10, SendBuffer: 16 << 10}, 16 << 10, 16 << 10},
		} {
			a := newAcceptor()
			r := newRig(t, a.handler(), netstack.Options{TCP: tc.tcp})
			r.send(segment{tuple: tu, flags: syn, seq: 1000}.frame())
			p := r.recvFlags(tu, syn|ack)
			r.send(segment{tuple: tu, flags: ack, seq: 1001, ack: p.seq + 1}.frame())
			c := <-a.conns
			if _, size := netstack.SendBuffer(c); p.window != tc.window || size != tc.send {
				t.Errorf("%+v: window %d, send buffer %d; want %d and %d", tc.tcp, p.window, size, tc.window, tc.send)
			}
			c.Abort()
		}
	})
}
