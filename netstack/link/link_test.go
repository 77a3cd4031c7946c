package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

const within = 5 * time.Second

// sink is a stack that keeps what is delivered.
type sink struct{ got chan []byte }

func (s *sink) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	b := pkt.ToBuffer()
	s.got <- b.Flatten()
	b.Release()
}

func (s *sink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// rig is an endpoint over a device in memory.
type rig struct {
	dev *tuntest.Device
	ep  *link.Endpoint
	up  *sink
	lan *lan.LAN // of a TAP
}

func newRig(t *testing.T, o tuntest.Options, sources ...netip.Prefix) *rig {
	t.Helper()
	r := &rig{dev: tuntest.New(o), up: &sink{got: make(chan []byte, 64)}}
	r.ep = link.New(link.Options{Device: r.dev, Sources: sources})
	r.ep.Attach(r.up)
	done := make(chan error, 1)
	go func() { done <- r.ep.Run(context.Background()) }()
	t.Cleanup(func() {
		_ = r.dev.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run returned %v after Close, want net.ErrClosed", err)
		}
	})
	return r
}

// deliver sends a frame and returns what the stack got; nil if it was dropped.
func (r *rig) deliver(t *testing.T, hdr offload.Hdr, packet []byte) []byte {
	t.Helper()
	before := r.drops()
	f := make([]byte, tuntest.HdrLen, tuntest.HdrLen+len(packet))
	hdr.Encode(f)
	r.dev.Send(append(f, packet...))
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case got := <-r.up.got:
			return got
		case <-poll.C:
			if r.drops() > before {
				return nil
			}
		case <-deadline.C:
			t.Fatal("the frame was neither delivered nor counted as dropped")
		}
	}
}

func (r *rig) drops() (n uint64) {
	for _, d := range r.ep.Stats().Drops {
		n += d
	}
	return n
}

var (
	client4 = netip.MustParseAddr("198.18.0.1")
	server4 = netip.MustParseAddr("192.0.2.1")
	client6 = netip.MustParseAddr("fd00:18::1")
	server6 = netip.MustParseAddr("2001:db8::1")
)

// tcpPacket builds a segment with a full checksum.
func tcpPacket(src, dst netip.Addr, payload []byte) []byte {
	seg := make([]byte, header.TCPMinimumSize+len(payload))
	tcp := header.TCP(seg)
	tcp.Encode(&header.TCPFields{SrcPort: 40000, DstPort: 80, SeqNum: 1, AckNum: 2, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 100})
	copy(seg[header.TCPMinimumSize:], payload)
	p := ipPacket(src, dst, uint8(header.TCPProtocolNumber), seg)
	pseudo := offload.PseudoSum(src, dst, uint8(header.TCPProtocolNumber), len(seg))
	tcp = header.TCP(p[len(p)-len(seg):])
	tcp.SetChecksum(^offload.Sum(tcp, pseudo))
	return p
}

func ipPacket(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is6() {
		b := make([]byte, header.IPv6MinimumSize+len(payload))
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(payload)), TransportProtocol: tcpip.TransportProtocolNumber(proto), HopLimit: 64, SrcAddr: tcpip.AddrFrom16(src.As16()), DstAddr: tcpip.AddrFrom16(dst.As16())})
		copy(b[header.IPv6MinimumSize:], payload)
		return b
	}
	b := make([]byte, header.IPv4MinimumSize+len(payload))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: proto, SrcAddr: tcpip.AddrFrom4(src.As4()), DstAddr: tcpip.AddrFrom4(dst.As4())})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(b[header.IPv4MinimumSize:], payload)
	return b
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestInbound sends good frames of every size class and expects the same bytes.
func TestInbound(t *testing.T) {
	whole, merging := tuntest.Options{MTU: 65535}, tuntest.Options{MTU: 9000, NoTSO: true}
	t.Run("whole", func(t *testing.T) { checkInbound(t, newRig(t, whole), 65000, 0) })
	t.Run("whole, in one piece", func(t *testing.T) { checkInbound(t, newRig(t, whole), 65000, smallFrames) })
	t.Run("whole, Ethernet", func(t *testing.T) { checkInbound(t, newTAP(t, whole), 65000, 0) })
	t.Run("whole, Ethernet, in one piece", func(t *testing.T) { checkInbound(t, newTAP(t, whole), 65000, smallFrames) })
	t.Run("merging", func(t *testing.T) { checkInbound(t, newRig(t, merging), 8900, 0) })
	t.Run("merging, Ethernet", func(t *testing.T) { checkInbound(t, newTAP(t, merging), 8900, 0) })
}

// smallFrames are enough of them for the link to expect no superframe.
const smallFrames = 100

// checkInbound sends packets of up to largest bytes of payload, and that many small
// ones before each.
func checkInbound(t *testing.T, r *rig, largest, small int) {
	t.Helper()
	var sent uint64
	send := func(src, dst netip.Addr, n int) {
		t.Helper()
		sent++
		p := tcpPacket(src, dst, random(n))
		f := p
		if r.lan != nil {
			f = r.ethernet(p)
		}
		if got := r.deliver(t, offload.Hdr{}, f); !bytes.Equal(got, p) {
			t.Fatalf("%v, %d bytes of payload: delivered %d bytes that differ from the %d sent", src, n, len(got), len(p))
		}
	}
	for _, fam := range []struct{ src, dst netip.Addr }{{client4, server4}, {client6, server6}} {
		for _, n := range []int{0, 1, 11, 12, 13, 31, 32, 33, 100, 511, 512, 513, 1400, 8900, 16383, 16384, 16385, 40000, 65000} {
			if n > largest {
				continue
			}
			for range small {
				send(fam.src, fam.dst, 10)
			}
			send(fam.src, fam.dst, n)
		}
	}
	s := r.ep.Stats()
	if rx := s.Queues[0].Rx; rx.Frames != sent || rx.Verified != sent {
		t.Errorf("counted %d frames, %d verified; want %d of each", rx.Frames, rx.Verified, sent)
	}
}

// TestMerging makes superframes of what a device without TSO delivers one by one,
// keeps each flow's order, and loses no byte.
func TestMerging(t *testing.T) {
	dev := tuntest.New(tuntest.Options{NoTSO: true})
	up := &sink{got: make(chan []byte, 256)}
	ep := link.New(link.Options{Device: dev})
	ep.Attach(up)
	const frames, size = 300, 1400
	want := random(frames * size)
	flows := [2]uint32{1, 1}
	var sent [2][]byte
	for i := range frames {
		flow := i / 3 % 2
		seg := want[i*size : (i+1)*size]
		sent[flow] = append(sent[flow], seg...)
		p := tcpPacket(client4, server4, seg)
		ip := header.IPv4(p)
		ip.SetFlagsFragmentOffset(header.IPv4FlagDontFragment, 0)
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		tcp := header.TCP(p[header.IPv4MinimumSize:])
		tcp.SetSourcePort(40000 + uint16(flow))
		tcp.SetSequenceNumber(flows[flow])
		flows[flow] += size
		if i == 200 {
			tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh))
		}
		tcp.SetChecksum(0)
		tcp.SetChecksum(^offload.Sum(tcp, offload.PseudoSum(client4, server4, uint8(header.TCPProtocolNumber), len(tcp))))
		dev.Send(append(make([]byte, tuntest.HdrLen), p...))
	}
	done := make(chan error, 1)
	go func() { done <- ep.Run(context.Background()) }()
	var got [2][]byte
	packets := 0
	for len(got[0])+len(got[1]) < len(want) {
		select {
		case p := <-up.got:
			packets++
			tcp := header.TCP(p[header.IPv4MinimumSize:])
			flow := int(tcp.SourcePort() - 40000)
			if tcp.SequenceNumber() != 1+uint32(len(got[flow])) {
				t.Fatalf("flow %d: sequence number %d after %d bytes", flow, tcp.SequenceNumber(), len(got[flow]))
			}
			got[flow] = append(got[flow], p[header.IPv4MinimumSize+header.TCPMinimumSize:]...)
		case <-time.After(within):
			t.Fatalf("%d of %d bytes in %d packets; %+v", len(got[0])+len(got[1]), len(want), packets, ep.Stats())
		}
	}
	for flow := range got {
		if !bytes.Equal(got[flow], sent[flow]) {
			t.Errorf("flow %d came out changed", flow)
		}
	}
	if rx := ep.Stats().Queues[0].Rx; packets > frames/10 || rx.Merged < frames*9/10 {
		t.Errorf("%d frames became %d packets, %d of them merged", frames, packets, rx.Merged)
	}
	_ = dev.Close()
	<-done
}

// TestInboundPadding cuts what lies behind the IP length.
func TestInboundPadding(t *testing.T) {
	r := newRig(t, tuntest.Options{})
	p := tcpPacket(client4, server4, random(10))
	if got := r.deliver(t, offload.Hdr{}, append(bytes.Clone(p), 0, 0, 0, 0, 0, 0)); !bytes.Equal(got, p) {
		t.Errorf("got %d bytes, want the packet's %d without its padding", len(got), len(p))
	}
}

// TestInboundSuperframe delivers a superframe whole and counts it as one.
func TestInboundSuperframe(t *testing.T) {
	r := newRig(t, tuntest.Options{})
	for _, fam := range []struct {
		src, dst netip.Addr
		typ      offload.GSOType
	}{{client4, server4, offload.GSOTCPv4}, {client6, server6, offload.GSOTCPv6}} {
		p := tcpPacket(fam.src, fam.dst, random(50000))
		l3 := len(p) - 50000 - header.TCPMinimumSize
		h := offload.Hdr{Flags: offload.FlagNeedsCsum, GSOType: fam.typ, GSOSize: 1400, CsumStart: uint16(l3), CsumOffset: 16, HdrLen: uint16(l3 + 20)}
		if got := r.deliver(t, h, p); !bytes.Equal(got, p) {
			t.Fatalf("%v: superframe of %d bytes arrived as %d", fam.src, len(p), len(got))
		}
	}
	if rx := r.ep.Stats().Queues[0].Rx; rx.Superframes != 2 || rx.PartialChecksum != 2 || rx.Verified != 0 {
		t.Errorf("counted %+v", rx)
	}
}

// mutate returns p with byte i set to v.
func mutate(p []byte, i int, v byte) []byte {
	p = bytes.Clone(p)
	p[i] = v
	return p
}

// fragment returns the IPv4 packet p as its own first fragment.
func fragment(p []byte) []byte {
	p = bytes.Clone(p)
	ip := header.IPv4(p)
	ip.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	return p
}

// TestInboundDrops has a row for each way a frame is refused.
func TestInboundDrops(t *testing.T) {
	good := tcpPacket(client4, server4, []byte("hello"))
	flip := func(i int) []byte { b := bytes.Clone(good); b[i] ^= 1; return b }
	other := func(src, dst string) []byte {
		return tcpPacket(netip.MustParseAddr(src), netip.MustParseAddr(dst), nil)
	}
	land := tcpPacket(server4, server4, nil)
	binary.BigEndian.PutUint16(land[20:], 80)
	for _, c := range []struct {
		name   string
		hdr    offload.Hdr
		packet []byte
		want   link.DropReason
	}{
		{"nothing", offload.Hdr{}, nil, link.DropTruncated},
		{"one byte", offload.Hdr{}, good[:1], link.DropTruncated},
		{"cut in the IP header", offload.Hdr{}, good[:19], link.DropTruncated},
		{"cut in the payload", offload.Hdr{}, good[:len(good)-1], link.DropTruncated},
		{"IP checksum", offload.Hdr{}, flip(8), link.DropBadIP},
		{"version 5", offload.Hdr{}, append([]byte{0x55}, good[1:]...), link.DropBadVersion},
		{"TCP checksum", offload.Hdr{}, flip(len(good) - 1), link.DropChecksum},
		{"csum_start off", offload.Hdr{Flags: offload.FlagNeedsCsum, CsumStart: 19, CsumOffset: 16}, good, link.DropBadHdr},
		{"GSO of the other family", offload.Hdr{Flags: offload.FlagNeedsCsum, CsumStart: 20, CsumOffset: 16, GSOType: offload.GSOTCPv6, GSOSize: 100}, good, link.DropBadHdr},
		{"USO, which is off", offload.Hdr{Flags: offload.FlagNeedsCsum, CsumStart: 20, CsumOffset: 16, GSOType: offload.GSOUDPL4, GSOSize: 100}, good, link.DropBadHdr},
		{"UFO", offload.Hdr{Flags: offload.FlagNeedsCsum, CsumStart: 20, CsumOffset: 16, GSOType: offload.GSOUDP, GSOSize: 100}, good, link.DropGSO},
		{"TCP header length", offload.Hdr{}, mutate(good, 32, 0x40), link.DropTransport},
		{"TCP fragment", offload.Hdr{}, fragment(good), link.DropFragment},
		{"source multicast", offload.Hdr{}, other("224.0.0.1", "192.0.2.1"), link.DropSource},
		{"source loopback", offload.Hdr{}, other("127.0.0.1", "192.0.2.1"), link.DropSource},
		{"source 0.0.0.0", offload.Hdr{}, other("0.0.0.0", "192.0.2.1"), link.DropSource},
		{"source broadcast", offload.Hdr{}, other("255.255.255.255", "192.0.2.1"), link.DropSource},
		{"source ::1", offload.Hdr{}, other("::1", "2001:db8::1"), link.DropSource},
		{"source mapped", offload.Hdr{}, other("::ffff:198.18.0.1", "2001:db8::1"), link.DropSource},
		{"destination loopback", offload.Hdr{}, other("198.18.0.1", "127.0.0.1"), link.DropDestination},
		{"destination 0/8", offload.Hdr{}, other("198.18.0.1", "0.1.2.3"), link.DropDestination},
		{"destination class E", offload.Hdr{}, other("198.18.0.1", "240.0.0.1"), link.DropDestination},
		{"destination ::", offload.Hdr{}, other("fd00:18::1", "::"), link.DropDestination},
		{"multicast", offload.Hdr{}, other("198.18.0.1", "224.0.0.251"), link.DropMulticast},
		{"multicast v6", offload.Hdr{}, other("fe80::1", "ff02::16"), link.DropMulticast},
		{"land", offload.Hdr{}, land, link.DropLand},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, tuntest.Options{})
			if c.want == link.DropLand {
				// The ports were changed after the checksum was made.
				c.hdr = offload.Hdr{Flags: offload.FlagDataValid}
			}
			if got := r.deliver(t, c.hdr, c.packet); got != nil {
				t.Fatalf("delivered %d bytes", len(got))
			}
			if s := r.ep.Stats(); s.Drops[c.want] != 1 {
				t.Errorf("drops are %v, want one of %s", s.Drops, c.want)
			}
			if c.want.String() == "unknown" || c.want.String() == "" || !c.want.Inbound() {
				t.Errorf("reason %d has no name or the wrong side", c.want)
			}
		})
	}
}

// TestSources admits configured prefixes alone.
func TestSources(t *testing.T) {
	r := newRig(t, tuntest.Options{}, netip.MustParsePrefix("198.18.0.0/15"))
	if r.deliver(t, offload.Hdr{}, tcpPacket(client4, server4, nil)) == nil {
		t.Error("a source inside the prefix was dropped")
	}
	if r.deliver(t, offload.Hdr{}, tcpPacket(server4, client4, nil)) != nil {
		t.Error("a source outside the prefix was delivered")
	}
}

// outbound builds a packet as gVisor's TCP hands it over.
func outbound(src, dst netip.Addr, payload []byte, mss uint16) *stack.PacketBuffer {
	size := header.IPv4MinimumSize
	if src.Is6() {
		size = header.IPv6MinimumSize
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: size + header.TCPMinimumSize, Payload: buffer.MakeWithData(payload)})
	whole := tcpPacket(src, dst, payload)
	copy(pkt.TransportHeader().Push(header.TCPMinimumSize), whole[size:])
	copy(pkt.NetworkHeader().Push(size), whole)
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	tcp := header.TCP(pkt.TransportHeader().Slice())
	tcp.SetChecksum(0)
	if mss > 0 {
		pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: mss, L3HdrLen: uint16(size)}
		tcp.SetChecksum(offload.PseudoSum(src, dst, uint8(header.TCPProtocolNumber), header.TCPMinimumSize+len(payload)))
	}
	if src.Is6() {
		pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
		if mss > 0 {
			pkt.GSOOptions.Type = stack.GSOTCPv6
		}
	}
	return pkt
}

// TestOutbound writes packets of all kinds under all offloads, and lets an
// independent reader put frames together again: the payload must come out whole,
// in frames the device can take, with checksums that are right once completed.
func TestOutbound(t *testing.T) {
	for _, o := range []tuntest.Options{{}, {NoTSO: true}, {NoChecksum: true}} {
		for _, fam := range []struct{ src, dst netip.Addr }{{server4, client4}, {server6, client6}} {
			for _, c := range []struct {
				n   int
				mss uint16
			}{{0, 0}, {1, 0}, {1400, 0}, {10, 1400}, {1400, 1400}, {1401, 1400}, {60000, 1400}, {60000, 536}} {
				checkOutbound(t, o, fam.src, fam.dst, c.n, c.mss)
			}
		}
	}
}

func checkOutbound(t *testing.T, o tuntest.Options, src, dst netip.Addr, n int, mss uint16) {
	t.Helper()
	r := newRig(t, o)
	payload := random(n)
	pkt := outbound(src, dst, payload, mss)
	var list stack.PacketBufferList
	list.PushBack(pkt)
	if sent, err := r.ep.WritePackets(list); sent != 1 || err != nil {
		t.Fatalf("WritePackets: %d, %v", sent, err)
	}
	pkt.DecRef()
	var got []byte
	frames := r.dev.Written()
	for range frames {
		f := r.dev.Recv(within)
		var h offload.Hdr
		var p offload.Packet
		h.Decode(f)
		f = f[tuntest.HdrLen:]
		if v := offload.Parse(&p, f, len(f)); v != offload.OK {
			t.Fatalf("%+v, %d bytes, MSS %d: frame does not parse: %v", o, n, mss, v)
		}
		if v := h.Check(&p); v != offload.OK {
			t.Fatalf("%+v, %d bytes, MSS %d: %+v does not fit its frame: %v", o, n, mss, h, v)
		}
		if h.Flags != 0 && o.NoChecksum || h.GSOType != 0 && (o.NoTSO || o.NoChecksum) {
			t.Fatalf("%+v: %+v uses an offload that is off", o, h)
		}
		if h.Flags != 0 {
			offload.Complete(&h, [][]byte{f})
		}
		if !offload.VerifyTransport(&p, [][]byte{f}) {
			t.Fatalf("%+v, %d bytes, MSS %d: checksum wrong", o, n, mss)
		}
		body := f[p.L3Len+p.L4Len:]
		if h.GSOType == 0 && mss > 0 && len(body) > int(mss) {
			t.Fatalf("%+v: frame with %d bytes of payload, MSS %d", o, len(body), mss)
		}
		got = append(got, body...)
	}
	if !bytes.Equal(got, payload) {
		t.Fatalf("%+v, MSS %d: %d bytes came out as %d in %d frames", o, mss, n, len(got), frames)
	}
}

// TestRefusedSuperframes loses nothing when the device refuses a superframe, and
// stops writing them after three.
func TestRefusedSuperframes(t *testing.T) {
	r := newRig(t, tuntest.Options{})
	r.dev.RefuseSuperframes(true)
	payload := random(4000)
	for i := range 5 {
		var list stack.PacketBufferList
		pkt := outbound(server4, client4, payload, 1400)
		list.PushBack(pkt)
		if _, err := r.ep.WritePackets(list); err != nil {
			t.Fatal(err)
		}
		pkt.DecRef()
		var got []byte
		for range 3 {
			f := r.dev.Recv(within)
			var p offload.Packet
			if v := offload.Parse(&p, f[tuntest.HdrLen:], len(f)-tuntest.HdrLen); v != offload.OK {
				t.Fatal(v)
			}
			got = append(got, f[tuntest.HdrLen+p.L3Len+p.L4Len:]...)
		}
		if !bytes.Equal(got, payload) {
			t.Fatalf("superframe %d: %d bytes arrived of %d", i, len(got), len(payload))
		}
	}
	s := r.ep.Stats()
	if tx := s.Queues[0].Tx; tx.Refused != 3 || tx.SoftwareGSO != 5 || r.ep.Features().TSO4 || r.drops() != 0 {
		t.Errorf("%+v, %v, drops %v; want 3 refused, 5 segmented, TSO off, no drops", tx, r.ep.Features(), s.Drops)
	}
}

// TestGone ends Run with the reason.
func TestGone(t *testing.T) {
	dev := tuntest.New(tuntest.Options{})
	ep := link.New(link.Options{Device: dev})
	dev.Delete()
	if err := ep.Run(context.Background()); !errors.Is(err, tundev.ErrGone) {
		t.Errorf("Run returned %v, want tundev.ErrGone", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ep.Run(ctx); err != nil {
		t.Errorf("Run returned %v after its context, want nil", err)
	}
}
