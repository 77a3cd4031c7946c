package lan

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/offload"
)

// unhex turns annotated hex into bytes.
func unhex(s string) []byte {
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		panic(err)
	}
	return b
}

func ip(s string) netip.Addr        { return netip.MustParseAddr(s) }
func network(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// The stations of the tests.
var (
	gateway = MAC{2, 0, 0, 0, 0, 1}
	guestA  = MAC{2, 0, 0, 0, 0, 0x0a}
	guestB  = MAC{2, 0, 0, 0, 0, 0x0b}
	guestC  = MAC{2, 0, 0, 0, 0, 0x0c}
)

// Their addresses.
var (
	gateway4 = ip("198.18.0.1")
	gateway6 = ip("fd00:18::1")
	a4, b4   = ip("198.18.0.10"), ip("198.18.0.11")
	a6, b6   = ip("fd00:18::a"), ip("fd00:18::b")
	allA     = ip("fe80::ff:fe00:a") // guestA's link-local address
	far4     = ip("192.0.2.1")
	far6     = ip("2001:db8::1")
)

// options is what most tests run with.
func options() Options {
	return Options{
		MAC:       gateway,
		Addresses: []netip.Prefix{network("198.18.0.1/24"), network("fd00:18::1/64")},
		MTU:       1400,
	}
}

// rig is a LAN under a clock of its own.
type rig struct {
	testing.TB
	l    *LAN
	now  time.Time
	sent [][]byte
}

// quiet makes a rig whose LAN has introduced itself already.
func quiet(t testing.TB, change func(*Options)) *rig {
	r := newRig(t, change)
	r.advance(2 * announceInterval)
	r.sent = nil
	return r
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	o := options()
	if change != nil {
		change(&o)
	}
	r := &rig{TB: t, now: time.Unix(1e9, 0)}
	var err error
	if r.l, err = New(o, r.now); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) send(frame []byte) { r.sent = append(r.sent, frame) }

// in gives a frame and returns what became of it.
func (r *rig) in(frame []byte) Verdict {
	before := bytes.Clone(frame)
	v := r.l.Input(Frame{Data: frame}, r.now, r.send)
	if !bytes.Equal(frame, before) {
		r.Fatalf("Input changed the frame")
	}
	return v
}

// consumed gives frames that must be served.
func (r *rig) consumed(frames ...[]byte) {
	r.Helper()
	for _, f := range frames {
		if v := r.in(f); v != Consumed {
			r.Fatalf("verdict %d on %x, want Consumed; %s", v, f, r.drops())
		}
	}
}

// delivered gives frames that must pass to the stack.
func (r *rig) delivered(frames ...[]byte) {
	r.Helper()
	for _, f := range frames {
		if v := r.in(f); v != Deliver {
			r.Fatalf("verdict %d on %x, want Deliver; %s", v, f, r.drops())
		}
	}
}

// dropped gives a frame that must be dropped for one reason.
func (r *rig) dropped(frame []byte, want DropReason) {
	r.Helper()
	before := r.l.Stats().Drops
	v := r.in(frame)
	after := r.l.Stats().Drops
	before[want]++
	if v != Dropped || after != before {
		r.Fatalf("verdict %d on %x, want it dropped for %s; %s", v, frame, want, r.drops())
	}
}

func (r *rig) drops() string {
	var s []string
	for i, n := range r.l.Stats().Drops {
		if n > 0 {
			s = append(s, DropReason(i).String())
		}
	}
	return "dropped so far: " + strings.Join(s, " ")
}

// event checks a counter.
func (r *rig) event(e Event, want uint64) {
	r.Helper()
	if got := r.l.Stats().Events[e]; got != want {
		r.Errorf("counted %d of %s, want %d", got, e, want)
	}
}

// advance lets time pass, with every tick at its time.
func (r *rig) advance(d time.Duration) {
	end := r.now.Add(d)
	for {
		next := r.l.Next()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(r.now) {
			r.now = next
		}
		r.l.Tick(r.now, r.send)
	}
	r.now = end
}

// take returns the frames sent since the last call.
func (r *rig) take() [][]byte {
	s := r.sent
	r.sent = nil
	return s
}

// one returns the one frame sent since the last take.
func (r *rig) one() []byte {
	r.Helper()
	s := r.take()
	if len(s) != 1 {
		r.Fatalf("%d frames were sent, want 1: %x", len(s), s)
	}
	return s[0]
}

// none checks that nothing was sent.
func (r *rig) none() {
	r.Helper()
	if s := r.take(); len(s) != 0 {
		r.Fatalf("sent %x, want nothing", s)
	}
}

// at checks where the LAN sends packets for an address: the zero MAC is nowhere.
func (r *rig) at(a netip.Addr, want MAC) {
	r.Helper()
	if got, ok := r.l.Lookup(a); ok != (want != MAC{}) || ok && got != want {
		r.Errorf("%v is at %v, %v; want %v", a, got, ok, want)
	}
}

// packet is a Pending that remembers what became of it.
type packet struct {
	to      MAC
	dropped bool
	calls   int
}

func (p *packet) Send(to MAC) { p.to = to; p.calls++ }
func (p *packet) Drop()       { p.dropped = true; p.calls++ }

// out sends a packet to an address that is not known yet.
func (r *rig) out(to netip.Addr) *packet {
	p := &packet{}
	r.l.Resolve(to, p, r.now, r.send)
	return p
}

// ethernet puts a body into a frame.
func ethernet(dst, src MAC, typ uint16, body []byte) []byte {
	return bytes.Join([][]byte{dst[:], src[:], binary.BigEndian.AppendUint16(nil, typ), body}, nil)
}

// arpFrame builds an ARP packet as gVisor's codec has it.
func arpFrame(dst, src MAC, op header.ARPOp, sender, target netip.Addr) []byte {
	b := make([]byte, header.ARPSize)
	a := header.ARP(b)
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), src[:])
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	if op == header.ARPReply {
		copy(a.HardwareAddressTarget(), dst[:])
	}
	return ethernet(dst, src, 0x0806, b)
}

func whoHas(src MAC, sender, target netip.Addr) []byte {
	return arpFrame(broadcast(), src, header.ARPRequest, sender, target)
}

func isAt(src MAC, sender netip.Addr) []byte {
	return arpFrame(gateway, src, header.ARPReply, sender, gateway4)
}

// ip6 is the header of a message of neighbor discovery in a test.
type ip6 struct {
	mac      MAC // destination
	from     MAC
	src, dst netip.Addr
	hops     uint8
}

// icmpFrame builds an ICMPv6 packet; typ and the words behind the checksum are in
// message.
func icmpFrame(h ip6, message []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize+len(message))
	src, dst := tcpip.AddrFrom16(h.src.As16()), tcpip.AddrFrom16(h.dst.As16())
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(message)), TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit: h.hops, SrcAddr: src, DstAddr: dst,
	})
	icmp := header.ICMPv6(b[header.IPv6MinimumSize:])
	copy(icmp, message)
	icmp.SetChecksum(0)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: src, Dst: dst}))
	return ethernet(h.mac, h.from, 0x86dd, b)
}

// solicit is a neighbor solicitation as kernels send them.
func solicit(src MAC, from, target netip.Addr, options ...byte) []byte {
	group := solicitedNode(target)
	m := append([]byte{ndpNS, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return icmpFrame(ip6{groupMAC(group), src, from, group, 255}, append(m, options...))
}

// advert is a neighbor advertisement to the gateway, or to all nodes.
func advert(src MAC, target, to netip.Addr, flags byte, options ...byte) []byte {
	mac := gateway
	if to.IsMulticast() {
		mac = groupMAC(to)
	}
	m := append([]byte{ndpNA, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	return icmpFrame(ip6{mac, src, target, to, 255}, append(m, options...))
}

func lla(kind byte, m MAC) []byte { return append([]byte{kind, 1}, m[:]...) }

// dataFrame is a UDP packet of a guest to somewhere beyond the gateway.
func dataFrame(src MAC, from, to netip.Addr) []byte {
	return udpFrame(gateway, src, netip.AddrPortFrom(from, 5000), netip.AddrPortFrom(to, 53), []byte("data"))
}

func udpFrame(dst, src MAC, from, to netip.AddrPort, payload []byte) []byte {
	u := make([]byte, header.UDPMinimumSize+len(payload))
	udp := header.UDP(u)
	udp.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(u))})
	copy(u[header.UDPMinimumSize:], payload)
	pseudo := offload.PseudoSum(from.Addr(), to.Addr(), uint8(header.UDPProtocolNumber), len(u))
	udp.SetChecksum(^offload.Sum(u, pseudo))
	if from.Addr().Is6() {
		b := make([]byte, header.IPv6MinimumSize)
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(u)), TransportProtocol: header.UDPProtocolNumber, HopLimit: 64, SrcAddr: tcpip.AddrFrom16(from.Addr().As16()), DstAddr: tcpip.AddrFrom16(to.Addr().As16())})
		return ethernet(dst, src, 0x86dd, bytes.Join([][]byte{b, u}, nil))
	}
	b := make([]byte, header.IPv4MinimumSize)
	h := header.IPv4(b)
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(b) + len(u)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: tcpip.AddrFrom4(from.Addr().As4()), DstAddr: tcpip.AddrFrom4(to.Addr().As4())})
	h.SetChecksum(^h.CalculateChecksum())
	return ethernet(dst, src, 0x0800, bytes.Join([][]byte{b, u}, nil))
}

// checkFrame proves by other code than ours that a frame of ours is whole: from
// the gateway, and every length and checksum right.
func checkFrame(t testing.TB, frame []byte) {
	t.Helper()
	var h Header
	if !h.Decode(frame) || h.Src != gateway || h.Dst == gateway || h.Dst == (MAC{}) {
		t.Fatalf("header of %x", frame)
	}
	body := frame[HdrLen:]
	switch h.Type {
	case TypeARP:
		if a := header.ARP(body); len(body) != header.ARPSize || !a.IsValid() {
			t.Fatalf("ARP of %x", frame)
		}
	case TypeIPv4:
		p := header.IPv4(body)
		if !p.IsValid(len(body)) || !p.IsChecksumValid() || int(p.TotalLength()) != len(body) {
			t.Fatalf("IPv4 of %x", frame)
		}
		u := header.UDP(p.Payload())
		if int(u.Length()) != len(u) || naiveSum(pseudo4(p, len(u)), u) != 0xffff {
			t.Fatalf("UDP of %x", frame)
		}
	case TypeIPv6:
		p := header.IPv6(body)
		if !p.IsValid(len(body)) || int(p.PayloadLength()) != len(body)-40 || p.HopLimit() != 255 {
			t.Fatalf("IPv6 of %x", frame)
		}
		icmp := header.ICMPv6(p.Payload())
		if header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: p.SourceAddress(), Dst: p.DestinationAddress()}) != icmp.Checksum() {
			t.Fatalf("ICMPv6 of %x", frame)
		}
	default:
		t.Fatalf("EtherType of %x", frame)
	}
}

func pseudo4(p header.IPv4, n int) []byte {
	s, d := p.SourceAddress().As4(), p.DestinationAddress().As4()
	return bytes.Join([][]byte{s[:], d[:], {0, 17, byte(n >> 8), byte(n)}}, nil)
}

// naiveSum is RFC 1071 word by word.
func naiveSum(parts ...[]byte) uint16 {
	b := bytes.Join(parts, nil)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
