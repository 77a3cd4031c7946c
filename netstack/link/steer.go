package link

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/offload"
)

// steering remembers the queue that a flow came in by, for it to leave by the same:
// the kernel delivers a flow to the queue that it was last written to (tun.c,
// tun_flow_update), so another one would move it, and frames that wait in both
// would overtake each other.
//
// Flows that share a slot share a queue: the one that the last of them came in by.
// The kernel then moves the others there, too, and they stay.
type steering struct {
	seed   uint64
	queues []atomic.Uint32 // by slot; nil with one queue
}

// steerSlots is a power of two; an entry is 4 bytes.
const steerSlots = 1 << 16

func (s *steering) init(queues int) {
	if queues < 2 {
		s.queues = nil
		return
	}
	s.seed = maphash.Bytes(maphash.MakeSeed(), nil) | 1
	s.queues = make([]atomic.Uint32, steerSlots)
}

// note records that p came in by queue n.
func (s *steering) note(p *offload.Packet, n int) {
	if s.queues == nil {
		return
	}
	slot := &s.queues[s.slot(p.Src, p.SrcPort, p.Dst, p.DstPort)]
	if slot.Load() != uint32(n) { //nolint:gosec // at most tundev.MaxQueues
		slot.Store(uint32(n)) //nolint:gosec // the same
	}
}

// queue returns the queue that pkt, which goes to a client, is to leave by.
func (s *steering) queue(pkt *stack.PacketBuffer) int {
	if s.queues == nil {
		return 0
	}
	src, dst := outboundAddresses(pkt)
	var srcPort, dstPort uint16
	l4 := pkt.TransportHeader().Slice()
	switch pkt.TransportProtocolNumber {
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
		if len(l4) >= header.UDPMinimumSize {
			srcPort, dstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		}
	}
	return int(s.queues[s.slot(dst, dstPort, src, srcPort)].Load())
}

// slot hashes a flow, the client's side first. The seed keeps clients from choosing
// their slot.
func (s *steering) slot(client netip.Addr, clientPort uint16, server netip.Addr, serverPort uint16) int {
	a, b := client.As16(), server.As16()
	h := s.seed ^ uint64(clientPort)<<16 ^ uint64(serverPort)
	for _, w := range [...]uint64{
		binary.LittleEndian.Uint64(a[:]), binary.LittleEndian.Uint64(a[8:]),
		binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:]),
	} {
		hi, lo := bits.Mul64(h^w, 0x9e3779b97f4a7c15)
		h = hi ^ lo ^ s.seed
	}
	return int(h>>32) & (steerSlots - 1)
}

// outboundAddresses are those of a packet that the stack built.
func outboundAddresses(pkt *stack.PacketBuffer) (src, dst netip.Addr) {
	ip := pkt.NetworkHeader().Slice()
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		h := header.IPv6(ip)
		return fromStack(h.SourceAddress()), fromStack(h.DestinationAddress())
	}
	h := header.IPv4(ip)
	return fromStack(h.SourceAddress()), fromStack(h.DestinationAddress())
}

func fromStack(a tcpip.Address) netip.Addr {
	if a.Len() == header.IPv4AddressSize {
		return netip.AddrFrom4(a.As4())
	}
	return netip.AddrFrom16(a.As16())
}
