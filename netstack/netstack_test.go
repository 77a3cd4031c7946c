package netstack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack"
)

const (
	fin = header.TCPFlagFin
	syn = header.TCPFlagSyn
	rst = header.TCPFlagRst
	psh = header.TCPFlagPsh
	ack = header.TCPFlagAck
)

func forFamilies(t *testing.T, f func(*testing.T, tuple)) {
	t.Run("ipv4", func(t *testing.T) { f(t, tuple4(40000)) })
	t.Run("ipv6", func(t *testing.T) { f(t, tuple6(40000)) })
}

// TestConnection goes through a connection's life with raw segments.
func TestConnection(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		seq, next := r.connect(tu)
		c := <-a.conns
		if want := (flow.ID{Protocol: flow.TCP, Client: tu.src, Destination: tu.dst}); c.ID() != want {
			t.Errorf("ID is %v, want %v", c.ID(), want)
		}
		if _, err := c.ReadTo(io.Discard); !errors.Is(err, flow.ErrWouldBlock) || !errors.Is(err, unix.EAGAIN) {
			t.Errorf("read of nothing: %v, want ErrWouldBlock", err)
		}
		b := newBell()
		c.SetNotifier(b)
		r.send(segment{tuple: tu, flags: ack | psh, seq: seq, ack: next, payload: []byte("hello")}.frame())
		<-b.c
		var got bytes.Buffer
		if n, err := c.ReadTo(&got); n != 5 || err != nil || got.String() != "hello" {
			t.Errorf("read %d, %v, %q", n, err, got.String())
		}
		if n, err := c.WriteFrom(bytes.NewReader([]byte("world"))); n != 5 || err != nil {
			t.Errorf("write %d, %v", n, err)
		}
		p := r.recvFlags(tu, ack|psh)
		if string(p.payload) != "world" || p.seq != next || p.ack != seq+5 {
			t.Errorf("sent %q, seq %d, ack %d; want %q, %d, %d", p.payload, p.seq, p.ack, "world", next, seq+5)
		}
		checkClose(t, r, c, tu, seq+5, next+5)
	})
}

// checkClose half-closes from the client's side, then from ours.
func checkClose(t *testing.T, r *rig, c flow.Conn, tu tuple, seq, next uint32) {
	t.Helper()
	r.send(segment{tuple: tu, flags: ack | fin, seq: seq, ack: next}.frame())
	r.eventually("RDHUP", func() bool { return c.Readiness()&flow.EventRdHup != 0 })
	if _, err := c.ReadTo(io.Discard); !errors.Is(err, io.EOF) {
		t.Errorf("read after FIN: %v, want EOF", err)
	}
	if c.Broken() {
		t.Error("a half-closed connection is called broken")
	}
	if n, err := c.WriteFrom(bytes.NewReader([]byte("late"))); n != 4 || err != nil {
		t.Errorf("write after the client's FIN: %d, %v", n, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	p := r.recv("FIN", func(p packet) bool { return header.TCPFlags(p.TCPFlags)&fin != 0 })
	r.send(segment{tuple: tu, flags: ack, seq: seq + 1, ack: p.seq + uint32(len(p.payload)) + 1}.frame())
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := c.ReadTo(io.Discard); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v, want net.ErrClosed", err)
	}
	if n := r.s.Stats().Established; n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// TestReset reports a client's RST once and for all, and keeps what came before.
func TestReset(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		seq, next := r.connect(tu)
		c := <-a.conns
		r.send(segment{tuple: tu, flags: rst | ack, seq: seq, ack: next}.frame())
		r.eventually("broken", c.Broken)
		for range 3 {
			if _, err := c.ReadTo(io.Discard); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("read after RST: %v, want ECONNRESET", err)
			}
		}
		if _, err := c.WriteFrom(bytes.NewReader([]byte("x"))); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("write after RST: %v, want ECONNRESET", err)
		}
		c.Abort()
		c.Abort()
	})
}

// TestAbort sends a RST.
func TestAbort(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRig(t, a.handler(), netstack.Options{})
		r.connect(tu)
		c := <-a.conns
		c.Abort()
		r.recvFlags(tu, rst|ack)
	})
}

// TestRefuseAndDrop shows the client a closed port, or nothing.
func TestRefuseAndDrop(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		drop := make(chan struct{}, 1)
		r := newRig(t, handler{tcp: func(_ context.Context, r flow.Request) {
			select {
			case <-drop:
				r.Drop()
				r.Drop()
			default:
				r.Refuse()
				r.Refuse()
			}
			if _, err := r.Accept(); err == nil {
				t.Error("a request was accepted after it was answered")
			}
		}}, netstack.Options{})
		r.send(segment{tuple: tu, flags: syn, seq: 7}.frame())
		if p := r.recvFlags(tu, rst|ack); p.ack != 8 {
			t.Errorf("RST acknowledges %d, want 8", p.ack)
		}
		drop <- struct{}{}
		r.send(segment{tuple: tu, flags: syn, seq: 7}.frame())
		r.eventually("drop counted", func() bool { return r.s.Stats().Dropped == 1 })
		r.eventually("refusal counted", func() bool { s := r.s.Stats(); return s.Refused == 1 && s.Flows.HalfOpen == 0 })
	})
}

// TestForgottenRequest gives the slot of a handler that answers nothing back: a
// few thousand of those would stop the gateway.
func TestForgottenRequest(t *testing.T) {
	called := make(chan struct{})
	r := newRig(t, handler{tcp: func(context.Context, flow.Request) { called <- struct{}{} }}, netstack.Options{MaxHalfOpen: 2})
	for i := range uint16(10) {
		r.send(segment{tuple: tuple4(41000 + i), flags: syn}.frame())
		<-called
		r.eventually("slot free", func() bool { return r.s.Stats().Flows.HalfOpen == 0 })
	}
	if n := r.s.Stats().HalfOpenLimit; n != 0 {
		t.Errorf("%d SYNs met the limit", n)
	}
}

// TestHalfOpenLimit drops what is past the limit, counts it, and recovers; a
// retransmitted SYN takes no second slot.
func TestHalfOpenLimit(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, handler{tcp: func(_ context.Context, req flow.Request) {
		<-release
		req.Refuse()
	}}, netstack.Options{MaxHalfOpen: 2, MaxHalfOpenPerSource: 2, MaxHalfOpenPerDestination: 2, Overflow: netstack.OverflowDrop})
	for _, port := range []uint16{1, 1, 2, 1, 2} {
		r.send(segment{tuple: tuple4(port), flags: syn}.frame())
	}
	r.eventually("two half-open", func() bool { return r.s.Stats().Flows.HalfOpen == 2 })
	r.send(segment{tuple: tuple4(3), flags: syn}.frame())
	r.eventually("limit counted", func() bool { return r.s.Stats().HalfOpenLimit == 1 })
	close(release)
	r.recvFlags(tuple4(1), rst|ack)
	r.eventually("slots free", func() bool { return r.s.Stats().Flows.HalfOpen == 0 })
	r.send(segment{tuple: tuple4(3), flags: syn}.frame())
	r.recvFlags(tuple4(3), rst|ack)
}

// TestConnectionLimit resets what is past the limit until one closes.
func TestConnectionLimit(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{MaxConnections: 1})
	r.connect(tuple4(1))
	c := <-a.conns
	r.send(segment{tuple: tuple4(2), flags: syn}.frame())
	r.recvFlags(tuple4(2), rst|ack)
	r.eventually("counted at the limit", func() bool { return r.s.Stats().ConnectionLimit == 1 })
	_ = c.Close()
	r.connect(tuple4(3))
	<-a.conns
}

// TestFailedBeforeOpened: an attempt that fails while its endpoint stands already and
// nobody has looked at it yet leaves neither behind, and its client hears of it.
func TestFailedBeforeOpened(t *testing.T) {
	l, err := loop.New() // which runs only when the test says so
	if err != nil {
		t.Fatal(err)
	}
	a := newAcceptor()
	r := newRigWith(t, a.handler(), netstack.Options{}, netstack.Deps{Loop: l})
	tu := tuple4(1)
	r.connect(tu)
	r.eventually("the endpoint is connected", func() bool { return r.s.Stats().TCP.CurrentEstablished == 1 })
	if n := r.s.FailAttempts(unix.ETIMEDOUT); n != 1 {
		t.Fatalf("%d attempts were under way, want 1", n)
	}
	if err := <-a.errs; flow.ErrnoOf(err) != unix.ETIMEDOUT {
		t.Errorf("Accept returned %v, want ETIMEDOUT", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	r.recvFlags(tu, rst|ack)
	r.eventually("nothing is left", func() bool {
		s := r.s.Stats()
		return s.Established == 0 && s.TCP.CurrentEstablished == 0 && s.Flows.Records == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAfterSilence: the time at which a frame comes is that of its coming, however
// long the device was silent before.
func TestAfterSilence(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{Dial: netstack.DialAfter, Handshake: netstack.HandshakeOptions{Timeout: time.Second, SynAckRetries: -1}})
	wait := func(d time.Duration) { <-time.After(d) }
	wait(1200 * time.Millisecond)
	tu := tuple4(1)
	r.send(segment{tuple: tu, flags: header.TCPFlagSyn, seq: 1000}.frame())
	sa := r.recvFlags(tu, header.TCPFlagSyn|header.TCPFlagAck)
	wait(500 * time.Millisecond)
	r.send(segment{tuple: tu, flags: header.TCPFlagAck, seq: 1001, ack: sa.seq + 1}.frame())
	select {
	case <-a.conns:
	case err := <-a.errs:
		t.Errorf("the handshake failed: %v", err)
	case <-time.After(within):
		t.Error("nothing came of the handshake")
	}
}

// TestFailedHandshake returns the client's reset from Accept.
func TestFailedHandshake(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{})
	tu := tuple4(1)
	r.send(segment{tuple: tu, flags: syn, seq: 9}.frame())
	r.recvFlags(tu, syn|ack)
	r.send(segment{tuple: tu, flags: rst, seq: 10}.frame())
	err := <-a.errs
	var fe *flow.Error
	if !errors.As(err, &fe) || flow.ErrnoOf(err) == 0 {
		t.Errorf("Accept returned %v, want a flow.Error with an errno", err)
	}
	r.eventually("counted", func() bool { s := r.s.Stats(); return s.HandshakeFailed == 1 && s.Flows.HalfOpen == 0 })
}

// TestCloseDuringHandshake does not wait 127 s for a client that is gone.
func TestCloseDuringHandshake(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{})
	tu := tuple4(1)
	r.send(segment{tuple: tu, flags: syn}.frame())
	r.recvFlags(tu, syn|ack)
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	<-a.errs
}

// TestDrain refuses the new and leaves the old alone.
func TestDrain(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{})
	seq, next := r.connect(tuple4(1))
	c := <-a.conns
	r.s.Drain()
	r.send(segment{tuple: tuple4(2), flags: syn}.frame())
	r.recvFlags(tuple4(2), rst|ack)
	b := newBell()
	c.SetNotifier(b)
	r.send(segment{tuple: tuple4(1), flags: ack | psh, seq: seq, ack: next, payload: []byte("still")}.frame())
	<-b.c
	var got bytes.Buffer
	if _, err := c.ReadTo(&got); err != nil || got.String() != "still" {
		t.Errorf("%v, %q", err, got.String())
	}
}

// TestTupleReuse lets a client use its port again at once after we closed first:
// gVisor alone would ignore it for a minute.
func TestTupleReuse(t *testing.T) {
	a := newAcceptor()
	r := newRig(t, a.handler(), netstack.Options{})
	tu := tuple4(1)
	seq, _ := r.connect(tu)
	c := <-a.conns
	_ = c.Close()
	p := r.recvFlags(tu, fin|ack)
	r.send(segment{tuple: tu, flags: ack | fin, seq: seq, ack: p.seq + 1}.frame())
	r.recvFlags(tu, ack)
	r.eventually("SYN-ACK for the same tuple", func() bool {
		r.send(segment{tuple: tu, flags: syn, seq: 1 << 30}.frame())
		select {
		case c := <-a.conns:
			c.Abort()
			return true
		default:
		}
		for f := r.dev.Recv(1); f != nil; f = r.dev.Recv(1) {
			if p := parse(t, f); header.TCPFlags(p.TCPFlags) == syn|ack {
				return true
			}
		}
		return false
	})
}

// TestDatagrams passes payloads of all sizes both ways, byte for byte.
func TestDatagrams(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		r := newRig(t, handler{udp: func(w flow.DatagramWriter, id flow.ID, b []byte) bool {
			if id.Client != tu.src || id.Destination != tu.dst {
				t.Errorf("datagram of %v", id)
			}
			if err := w.WriteDatagram(id, id.Destination, b); err != nil {
				t.Error(err)
			}
			return true
		}}, netstack.Options{})
		for _, n := range []int{0, 1, 2, 511, 1400} {
			want := bytes.Repeat([]byte{byte(n), 0xa5}, n)[:n]
			r.send(datagram(tu, want))
			p := r.recv("datagram", func(p packet) bool { return p.Proto == uint8(header.UDPProtocolNumber) })
			if !bytes.Equal(p.payload, want) || p.SrcPort != tu.dst.Port() || p.Src != tu.dst.Addr() {
				t.Errorf("%d bytes came back as %d, from %v:%d", n, len(p.payload), p.Src, p.SrcPort)
			}
		}
		r.eventually("all counted", func() bool {
			s := r.s.Stats()
			return s.DatagramsIn == 5 && s.DatagramsOut == 5 && s.DatagramBytesIn == s.DatagramBytesOut
		})
	})
}

// TestDatagramFaults: bad lengths are counted, nobody home is ICMP.
func TestDatagramFaults(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		var later flow.DatagramWriter
		serve := false
		r := newRig(t, handler{udp: func(w flow.DatagramWriter, _ flow.ID, _ []byte) bool { later = w; return serve }}, netstack.Options{})
		r.send(datagram(tu, []byte("x")))
		icmp := func(p packet) bool {
			return p.Proto == uint8(header.ICMPv4ProtocolNumber) || p.Proto == uint8(header.ICMPv6ProtocolNumber)
		}
		r.recv("ICMP unreachable at once", icmp)
		id := flow.ID{Protocol: flow.UDP, Client: tu.src, Destination: tu.dst}
		later.RejectDatagram(id)
		p := r.recv("ICMP unreachable later", icmp)
		if p.Src != tu.dst.Addr() || p.Dst != tu.src.Addr() {
			t.Errorf("ICMP from %v to %v", p.Src, p.Dst)
		}
		if err := later.WriteDatagram(id, tu.dst, make([]byte, 65508)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("oversize datagram: %v, want EMSGSIZE", err)
		}
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := later.WriteDatagram(id, tu.dst, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v, want net.ErrClosed", err)
		}
	})
}

// TestOptions lists every fault at once.
func TestOptions(t *testing.T) {
	bad := netstack.Options{MaxHalfOpen: -1, MaxConnections: -1, TCP: netstack.TCPOptions{
		CongestionControl: "bbr", KeepaliveInterval: -1, KeepaliveCount: 200, UserTimeout: -1, ReceiveBuffer: 1, SendBuffer: 1 << 30,
	}}
	err := bad.Validate()
	for _, field := range []string{"max_half_open", "max_connections", "congestion_control", "keepalive_interval", "keepalive_count", "user_timeout", "receive_buffer", "send_buffer"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(field)) {
			t.Errorf("no fault for %s in %v", field, err)
		}
	}
	if _, err := netstack.New(nil, nil, bad, netstack.Deps{}); err == nil {
		t.Error("New takes what Validate refuses")
	}
}

// TestEcho answers pings for any address.
func TestEcho(t *testing.T) {
	r := newRig(t, handler{}, netstack.Options{})
	msg := make([]byte, header.ICMPv4MinimumSize+32)
	header.ICMPv4(msg).SetType(header.ICMPv4Echo)
	src, dst := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("203.0.113.9")
	f := ipFrame(src, dst, header.ICMPv4ProtocolNumber, msg, 2)
	// ICMPv4 has no pseudo-header.
	h := header.ICMPv4(f[len(f)-len(msg):])
	h.SetChecksum(0)
	h.SetChecksum(header.ICMPv4Checksum(h, 0))
	r.send(f)
	r.recv("echo reply", func(p packet) bool { return p.Proto == uint8(header.ICMPv4ProtocolNumber) && p.Src == dst })
	r.eventually("counted", func() bool { s := r.s.Stats().ICMP; return s.EchoReceived == 1 && s.EchoRepliesSent == 1 })
}
