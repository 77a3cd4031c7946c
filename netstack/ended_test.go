package netstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/minisock"
)

// client is one of several of a rig.
type client struct {
	tuple
	seq, ack uint32 // what it sends next
	conn     flow.Conn
	bell     *bell
	probes   int
	reset    bool
}

func (r *rig) client(a *acceptor, t tuple) *client {
	r.tb.Helper()
	c := &client{tuple: t, bell: newBell()}
	c.seq, c.ack = r.connect(t)
	c.conn = <-a.conns
	c.conn.SetNotifier(c.bell)
	return c
}

func (r *rig) says(c *client, flags header.TCPFlags) {
	r.tb.Helper()
	r.send(segment{tuple: c.tuple, flags: flags, seq: c.seq, ack: c.ack}.frame())
}

// hear takes a packet down for the client that it is for, and checks its numbers.
func (c *client) hear(tb testing.TB, p packet) (probe bool) {
	tb.Helper()
	switch flags := header.TCPFlags(p.TCPFlags); {
	case p.DstPort != c.src.Port():
	case flags == ack && p.seq == c.ack-1 && len(p.payload) == 0:
		if c.probes++; p.ack != c.seq {
			tb.Errorf("a probe acknowledges %d, want %d", p.ack, c.seq)
		}
		return true
	case flags&rst != 0:
		if c.reset = true; p.seq != c.ack || p.ack != c.seq {
			tb.Errorf("RST %d, %d; want %d, %d", p.seq, p.ack, c.ack, c.seq)
		}
	}
	return false
}

// TestSilentClients: who does not answer is given up, in each state in which it is
// the gateway that has to find out; who answers is not.
func TestSilentClients(t *testing.T) {
	const probes = 2
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{TCP: netstack.TCPOptions{KeepaliveIdle: time.Second, KeepaliveInterval: time.Second, KeepaliveCount: probes}})
	open, over6 := r.client(a, tuple4(1)), r.client(a, tuple6(2))
	half, closed, alive := r.client(a, tuple4(3)), r.client(a, tuple6(4)), r.client(a, tuple4(5))
	r.says(half, fin|ack) // CLOSE_WAIT
	half.seq++
	r.recvFlags(half.tuple, ack)
	if err := closed.conn.CloseWrite(); err != nil { // FIN_WAIT_2
		t.Fatal(err)
	}
	r.recvFlags(closed.tuple, fin|ack)
	closed.ack++
	r.says(closed, ack)

	dead := []*client{open, over6, half, closed}
	resets := 0
	for deadline := time.Now().Add(4 * within); resets < len(dead) || alive.probes <= probes; {
		f := r.dev.Recv(time.Until(deadline))
		if f == nil {
			t.Fatalf("%d resets, %d probes answered", resets, alive.probes)
		}
		p := parse(t, f)
		if alive.hear(t, p) {
			r.says(alive, ack)
		}
		for _, c := range dead {
			was := c.reset
			if c.hear(t, p); c.reset && !was {
				resets++
			}
		}
	}
	for _, c := range dead {
		r.eventually("broken", c.conn.Broken)
		<-c.bell.c
		if _, err := c.conn.ReadTo(io.Discard); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("port %d: %v, want ETIMEDOUT", c.src.Port(), err)
		}
		if c.probes != probes {
			t.Errorf("port %d was probed %d times", c.src.Port(), c.probes)
		}
		_ = c.conn.Close()
	}
	if alive.reset || alive.conn.Broken() {
		t.Error("who answered is given up as well")
	}
	s := r.s.Stats()
	if n := s.Flows.Counters[minisock.ClientSilent]; n != uint64(len(dead)) || s.Established != 1 || s.Flows.Records != 1 {
		t.Errorf("counted %d; %+v", n, s)
	}
	if n := s.Flows.Counters[minisock.ProbeSent]; n < probes*uint64(len(dead))+uint64(alive.probes) {
		t.Errorf("%d probes counted", n)
	}
}

// TestEndIdle resets who is silent, not who is not.
func TestEndIdle(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		silent := r.client(a, tu)
		tu.src = tuple4(41000).src
		if tu.dst.Addr().Is6() {
			tu.src = tuple6(41000).src
		}
		busy := r.client(a, tu)
		r.eventually("one ended", func() bool {
			r.says(busy, ack)
			return r.s.EndIdle(10, time.Second) == 1
		})
		p := r.recvFlags(silent.tuple, rst|ack)
		if silent.hear(t, p); !silent.reset {
			t.Errorf("%+v", p)
		}
		r.eventually("broken", silent.conn.Broken)
		if _, err := silent.conn.ReadTo(io.Discard); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%v, want ECONNABORTED", err)
		}
		silent.conn.Abort()
		if busy.conn.Broken() {
			t.Error("the busy one is ended as well")
		}
		if s := r.s.Stats(); s.Flows.Counters[minisock.Shed] != 1 || s.Flows.Records != 1 || s.Established != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestEndedTwice: an endpoint that is gone already is no matter.
func TestEndedTwice(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{})
	c := r.client(a, tuple6(1))
	c.conn.Abort()
	for _, why := range []minisock.Cause{minisock.ClientSilent, minisock.Shed} {
		r.s.Ended(c.src, c.dst, why)
		r.s.Ended(tuple4(9).src, tuple4(9).dst, why)
	}
}

// TestStalled: an endpoint that is told of a smaller MTU sends what is not acknowledged
// once more, at once and in segments that fit.
func TestStalled(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		c := r.client(a, tu)
		data := bytes.Repeat([]byte("0123456789"), 28)
		if n, err := c.conn.WriteFrom(bytes.NewReader(data)); n != int64(len(data)) || err != nil {
			t.Fatal(n, err)
		}
		first := r.recv("data", func(p packet) bool { return len(p.payload) > 0 })
		if !bytes.Equal(first.payload, data) {
			t.Fatalf("sent %d bytes", len(first.payload))
		}
		const least = 100
		r.s.Stalled(tuple4(9).src, tuple4(9).dst, 60) // of nobody
		r.s.Stalled(c.src, c.dst, 20+40+least)
		p := r.recv("some of it", func(p packet) bool { return len(p.payload) > 0 && len(p.payload) < len(data) })
		if n := len(p.payload); n < least || n > least+40 || p.seq != first.seq {
			t.Errorf("%d bytes at %d; want about %d at %d", n, p.seq, least, first.seq)
		}
	})
}

// TestStepwise: of a flow that has lost something the stack sees each segment's ACK by
// itself, however many the client acknowledges at once.
func TestStepwise(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		// It goes on for 256 ACKs on average, so one may be the last.
		most := uint64(0)
		for port := range uint16(4) {
			tu.src = netip.AddrPortFrom(tu.src.Addr(), 41000+port)
			most = max(most, stepwise(t, r, a, tu))
		}
		if most != 5 { // SACK takes 36 bytes of each segment
			t.Errorf("%d ACKs at most, want 5", most)
		}
	})
}

// stepwise opens a connection, loses a segment of four, and returns how many ACKs the
// stack sees when the client acknowledges all of them.
func stepwise(t *testing.T, r *rig, a *acceptor, tu tuple) uint64 {
	t.Helper()
	const mss = 1000
	r.send(segment{tuple: tu, flags: syn, seq: 1000, opts: []byte{2, 4, mss >> 8, mss & 0xff, 4, 2, 1, 1}}.frame())
	next := r.recvFlags(tu, syn|ack).seq + 1
	acks := func(more uint32, sack ...uint32) uint64 {
		before := r.s.Stats().TCP.SegmentsReceived
		g := segment{tuple: tu, flags: ack, seq: 1001, ack: next + more}
		if len(sack) > 0 {
			g.opts = []byte{1, 1, 5, 10}
		}
		for _, edge := range sack {
			g.opts = binary.BigEndian.AppendUint32(g.opts, next+edge)
		}
		r.send(g.frame())
		next += more
		seen := func() uint64 { return r.s.Stats().TCP.SegmentsReceived - before }
		r.eventually("the ACK", func() bool { return seen() > 0 })
		return seen()
	}
	acks(0)
	c := <-a.conns
	for range 2 {
		if n, err := c.WriteFrom(bytes.NewReader(make([]byte, 4*mss))); n != 4*mss || err != nil {
			t.Fatal(n, err)
		}
		r.recv("data", func(p packet) bool { return len(p.payload) > 0 && p.seq == next })
	}
	if n := acks(4 * mss); n != 1 {
		t.Errorf("%d ACKs where nothing was lost", n)
	}
	acks(0, 2*mss, 3*mss)
	n := acks(4 * mss)
	c.Abort()
	return n
}
