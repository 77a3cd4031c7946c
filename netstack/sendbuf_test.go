package netstack_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

func TestBufferFor(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	for _, c := range []struct {
		name     string
		rtt      time.Duration
		flows    int64
		min, max int64
	}{
		{"alone, next door", 50 * time.Microsecond, 1, mib, mib},
		{"eight share", 50 * time.Microsecond, 8, 512 * kib, 512 * kib},
		{"so many that each has the least", 50 * time.Microsecond, 1000, 128 * kib, 128 * kib},
		{"another host", time.Millisecond, 1000, 2 * mib, 3 * mib},
		{"another continent", 100 * time.Millisecond, 1000, 200 * mib, 220 * mib},
		{"never measured", time.Hour, 1, 4 * mib, 1 << 62},
		{"nobody counted", 0, 0, mib, mib},
	} {
		if got := netstack.BufferFor(c.rtt, c.flows); got < c.min || got > c.max {
			t.Errorf("%s: %d bytes, want %d to %d", c.name, got, c.min, c.max)
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
		seq, next := r.connect(tu)
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
			if far { // the path's delay
				<-time.After(3 * time.Millisecond)
			}
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
