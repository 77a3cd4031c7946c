package netstack_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev/tuntest"
)

const within = 5 * time.Second

// tuple is a TCP or UDP flow as the client sees it.
type tuple struct{ src, dst netip.AddrPort }

func tuple4(port uint16) tuple {
	return tuple{netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port), netip.MustParseAddrPort("192.0.2.1:80")}
}

func tuple6(port uint16) tuple {
	return tuple{netip.AddrPortFrom(netip.MustParseAddr("fd00:18::1"), port), netip.MustParseAddrPort("[2001:db8::1]:80")}
}

// segment is one TCP segment, in either direction.
type segment struct {
	tuple
	flags    header.TCPFlags
	seq, ack uint32
	opts     []byte // a multiple of 4
	payload  []byte
}

// frame encodes s with a full checksum behind an empty virtio_net_hdr.
func (s segment) frame() []byte {
	head := header.TCPMinimumSize + len(s.opts)
	l4 := make([]byte, head+len(s.payload))
	header.TCP(l4).Encode(&header.TCPFields{
		SrcPort: s.src.Port(), DstPort: s.dst.Port(), SeqNum: s.seq, AckNum: s.ack,
		DataOffset: uint8(head), Flags: s.flags, WindowSize: 65535,
	})
	copy(l4[header.TCPMinimumSize:], s.opts)
	copy(l4[head:], s.payload)
	return ipFrame(s.src.Addr(), s.dst.Addr(), header.TCPProtocolNumber, l4, header.TCPChecksumOffset)
}

// datagram encodes a UDP datagram.
func datagram(t tuple, payload []byte) []byte {
	l4 := make([]byte, header.UDPMinimumSize+len(payload))
	header.UDP(l4).Encode(&header.UDPFields{SrcPort: t.src.Port(), DstPort: t.dst.Port(), Length: uint16(len(l4))})
	copy(l4[header.UDPMinimumSize:], payload)
	return ipFrame(t.src.Addr(), t.dst.Addr(), header.UDPProtocolNumber, l4, 6)
}

// ipFrame puts an IP header before l4 and fills the checksum at off.
func ipFrame(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, l4 []byte, off int) []byte {
	sum := ^offload.Sum(l4, offload.PseudoSum(src, dst, uint8(proto), len(l4)))
	l4[off], l4[off+1] = byte(sum>>8), byte(sum)
	b := make([]byte, tuntest.HdrLen, tuntest.HdrLen+header.IPv6MinimumSize+len(l4))
	if src.Is4() {
		ip := header.IPv4(make([]byte, header.IPv4MinimumSize))
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(l4)), TTL: 64, Protocol: uint8(proto), SrcAddr: tcpip.AddrFrom4(src.As4()), DstAddr: tcpip.AddrFrom4(dst.As4())})
		ip.SetChecksum(^ip.CalculateChecksum())
		return append(append(b, ip...), l4...)
	}
	ip := header.IPv6(make([]byte, header.IPv6MinimumSize))
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(l4)), TransportProtocol: proto, HopLimit: 64, SrcAddr: tcpip.AddrFrom16(src.As16()), DstAddr: tcpip.AddrFrom16(dst.As16())})
	return append(append(b, ip...), l4...)
}

// packet is what a frame from the device says.
type packet struct {
	offload.Packet
	seq, ack uint32
	window   uint16
	payload  []byte // behind the transport header
}

// parse decodes a frame, and completes and verifies its checksum.
func parse(tb testing.TB, f []byte) packet {
	tb.Helper()
	var h offload.Hdr
	var p packet
	h.Decode(f)
	f = f[tuntest.HdrLen:]
	if v := offload.Parse(&p.Packet, f, len(f)); v != offload.OK {
		tb.Fatalf("outbound frame does not parse: %v", v)
	}
	if h.Flags != 0 {
		offload.Complete(&h, [][]byte{f})
	}
	if !offload.VerifyTransport(&p.Packet, [][]byte{f}) {
		tb.Fatal("outbound frame has a wrong checksum")
	}
	if p.Proto == uint8(header.TCPProtocolNumber) {
		t := header.TCP(f[p.L3Len:])
		p.seq, p.ack, p.window = t.SequenceNumber(), t.AckNumber(), t.WindowSize()
	}
	p.payload = f[p.L3Len+p.L4Len:]
	return p
}

// rig is a stack over a device in memory, and the client of it.
type rig struct {
	tb  testing.TB
	dev *tuntest.Device
	s   *netstack.Stack
}

func newRig(tb testing.TB, h flow.Handler, o netstack.Options) *rig {
	tb.Helper()
	return newRigWith(tb, h, o, netstack.Deps{})
}

func newRigWith(tb testing.TB, h flow.Handler, o netstack.Options, d netstack.Deps) *rig {
	tb.Helper()
	r := &rig{tb: tb, dev: tuntest.New(tuntest.Options{})}
	s, err := netstack.New(r.dev, h, o, d)
	if err != nil {
		tb.Fatal(err)
	}
	r.s = s
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		_ = r.dev.Close()
		if err := <-done; err != nil {
			tb.Errorf("Run returned %v", err)
		}
	})
	return r
}

func (r *rig) send(frames ...[]byte) {
	r.tb.Helper()
	for _, f := range frames {
		if !r.dev.Send(f) {
			r.tb.Fatal("the device's queue is full")
		}
	}
}

// recv returns the next packet that want accepts.
func (r *rig) recv(what string, want func(packet) bool) packet {
	r.tb.Helper()
	deadline := time.Now().Add(within)
	for time.Now().Before(deadline) {
		f := r.dev.Recv(time.Until(deadline))
		if f == nil {
			break
		}
		if p := parse(r.tb, f); want(p) {
			return p
		}
	}
	r.tb.Fatalf("no %s within %v", what, within)
	return packet{}
}

func (r *rig) recvFlags(t tuple, flags header.TCPFlags) packet {
	r.tb.Helper()
	return r.recv("segment with flags "+flags.String(), func(p packet) bool {
		return header.TCPFlags(p.TCPFlags) == flags && p.Dst == t.src.Addr() && p.DstPort == t.src.Port()
	})
}

// eventually waits until ok holds; the stack has no event to wait for instead.
func (r *rig) eventually(what string, ok func() bool) {
	r.tb.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.tb.Fatalf("not within %v: %s; %+v", within, what, r.s.Stats())
		}
	}
}

// connect does a handshake and returns the next sequence numbers.
func (r *rig) connect(t tuple) (seq, ack uint32) {
	r.tb.Helper()
	r.send(segment{tuple: t, flags: header.TCPFlagSyn, seq: 1000}.frame())
	sa := r.recvFlags(t, header.TCPFlagSyn|header.TCPFlagAck)
	r.send(segment{tuple: t, flags: header.TCPFlagAck, seq: 1001, ack: sa.seq + 1}.frame())
	return 1001, sa.seq + 1
}

// handler is a flow.Handler of functions.
type handler struct {
	tcp func(context.Context, flow.Request)
	udp func(flow.DatagramWriter, flow.ID, []byte) bool
}

func (h handler) HandleTCP(ctx context.Context, r flow.Request) { h.tcp(ctx, r) }

func (h handler) HandleDatagram(w flow.DatagramWriter, id flow.ID, b []byte) bool {
	return h.udp(w, id, b)
}

// acceptor is a handler that accepts everything and hands the connections out.
type acceptor struct {
	conns chan flow.Conn
	errs  chan error
}

func newAcceptor() *acceptor {
	return &acceptor{conns: make(chan flow.Conn, 16), errs: make(chan error, 16)}
}

func (a *acceptor) handler() handler {
	return handler{tcp: func(_ context.Context, r flow.Request) {
		c, err := r.Accept()
		if err != nil {
			a.errs <- err
			return
		}
		a.conns <- c
	}}
}

// bell is a flow.Notifier that tests wait on.
type bell struct{ c chan struct{} }

func newBell() *bell { return &bell{c: make(chan struct{}, 1)} }

func (b *bell) Notify() {
	select {
	case b.c <- struct{}{}:
	default:
	}
}
