package netstack

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/flow"
)

// maxDatagram is the largest UDP payload of IPv4, which is smaller than IPv6's.
const maxDatagram = 65535 - header.IPv4MinimumSize - header.UDPMinimumSize

// receiveDatagram is the UDP layer's default handler. False makes gVisor answer
// with ICMP port unreachable (rate-limited).
func (s *Stack) receiveDatagram(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	payload, ok := datagramPayload(pkt)
	if !ok {
		s.counters.dgramBad.Add(1)
		return true
	}
	s.counters.dgramIn.Add(1)
	s.counters.byteIn.Add(uint64(len(payload)))
	served := s.handler.HandleDatagram(s, flow.ID{
		Protocol:    flow.UDP,
		Client:      addrPort(id.RemoteAddress, id.RemotePort),
		Destination: addrPort(id.LocalAddress, id.LocalPort),
	}, payload)
	if !served {
		s.counters.dgramRejects.Add(1)
	}
	return served
}

// datagramPayload checks the UDP length and, where the link could not, the
// checksum, and returns the payload in one piece.
func datagramPayload(pkt *stack.PacketBuffer) ([]byte, bool) {
	h := header.UDP(pkt.TransportHeader().Slice())
	n := int(h.Length()) - header.UDPMinimumSize
	size := pkt.Data().Size()
	if n < 0 || n > size {
		return nil, false
	}
	ip := pkt.Network()
	lengthOK, sumOK := header.UDPValid(h, func() uint16 { return pkt.Data().Checksum() }, uint16(size), //nolint:gosec // an IP packet's
		pkt.NetworkProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), !reassembled(pkt))
	if !lengthOK || !sumOK {
		return nil, false
	}
	if n == 0 {
		return nil, true
	}
	return pkt.Data().PullUp(n)
}

// reassembled reports whether the packet came in fragments, or might have: the
// link cannot verify those, and gVisor calls them verified all the same.
func reassembled(pkt *stack.PacketBuffer) bool {
	h := pkt.NetworkHeader().Slice()
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		ip := header.IPv4(h)
		return ip.More() || ip.FragmentOffset() != 0
	}
	return len(h) > header.IPv6MinimumSize
}

// WriteDatagram implements flow.DatagramWriter.
func (s *Stack) WriteDatagram(id flow.ID, from netip.AddrPort, payload []byte) error {
	if len(payload) > maxDatagram {
		return &flow.Error{Op: "write", ID: id, Err: unix.EMSGSIZE}
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + header.UDPMinimumSize,
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	length := uint16(header.UDPMinimumSize + len(payload)) //nolint:gosec // bounded above
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	h.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: id.Client.Port(), Length: length})
	local, remote := address(from.Addr()), address(id.Client.Addr())
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, local, remote, length)
	sum = ^h.CalculateChecksum(checksum.Combine(sum, checksum.Checksum(payload, 0)))
	if sum == 0 {
		sum = 0xffff // RFC 768: zero means no checksum
	}
	h.SetChecksum(sum)
	pkt.TransportProtocolNumber = header.UDPProtocolNumber
	if err := s.writePacket(local, remote, networkProtocol(from.Addr()), header.UDPProtocolNumber, pkt); err != nil {
		return &flow.Error{Op: "write", ID: id, Err: err}
	}
	s.counters.dgramOut.Add(1)
	s.counters.byteOut.Add(uint64(len(payload)))
	return nil
}

// writePacket sends pkt, whose transport header is complete, from local to remote.
func (s *Stack) writePacket(local, remote tcpip.Address, ip tcpip.NetworkProtocolNumber, proto tcpip.TransportProtocolNumber, pkt *stack.PacketBuffer) error {
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	route, err := s.gv.FindRoute(nicID, local, remote, ip, false)
	if err != nil {
		return translate(err)
	}
	defer route.Release()
	return translate(route.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: route.DefaultTTL()}, pkt))
}

// RejectDatagram implements flow.DatagramWriter. The datagram is gone by then, so
// the error quotes headers built anew from the flow: a client's kernel looks only
// at addresses and ports (RFC 1122, section 4.1.3.3).
func (s *Stack) RejectDatagram(id flow.ID) {
	local, remote := address(id.Destination.Addr()), address(id.Client.Addr())
	quoted := quoteDatagram(id, local, remote)
	var pkt *stack.PacketBuffer
	var err error
	if id.Client.Addr().Is4() {
		pkt = unreachableV4(quoted)
		defer pkt.DecRef()
		err = s.writePacket(local, remote, header.IPv4ProtocolNumber, header.ICMPv4ProtocolNumber, pkt)
	} else {
		pkt = unreachableV6(quoted, local, remote)
		defer pkt.DecRef()
		err = s.writePacket(local, remote, header.IPv6ProtocolNumber, header.ICMPv6ProtocolNumber, pkt)
	}
	if err == nil {
		s.counters.dgramRejects.Add(1)
	}
}

// quoteDatagram builds the IP and UDP header of an empty datagram of id.
func quoteDatagram(id flow.ID, local, remote tcpip.Address) []byte {
	fields := header.UDPFields{SrcPort: id.Client.Port(), DstPort: id.Destination.Port(), Length: header.UDPMinimumSize}
	if id.Client.Addr().Is4() {
		b := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize)
		ip := header.IPv4(b)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: remote, DstAddr: local}) //nolint:gosec // 28
		ip.SetChecksum(^ip.CalculateChecksum())
		header.UDP(b[header.IPv4MinimumSize:]).Encode(&fields)
		return b
	}
	b := make([]byte, header.IPv6MinimumSize+header.UDPMinimumSize)
	header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: header.UDPMinimumSize, TransportProtocol: header.UDPProtocolNumber, HopLimit: 64, SrcAddr: remote, DstAddr: local})
	header.UDP(b[header.IPv6MinimumSize:]).Encode(&fields)
	return b
}

func unreachableV4(quoted []byte) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv4MinimumSize + header.ICMPv4MinimumSize,
		Payload:            buffer.MakeWithData(quoted),
	})
	h := header.ICMPv4(pkt.TransportHeader().Push(header.ICMPv4MinimumSize))
	h.SetType(header.ICMPv4DstUnreachable)
	h.SetCode(header.ICMPv4PortUnreachable)
	h.SetChecksum(header.ICMPv4Checksum(h, checksum.Checksum(quoted, 0)))
	pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
	return pkt
}

func unreachableV6(quoted []byte, local, remote tcpip.Address) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + header.ICMPv6DstUnreachableMinimumSize,
		Payload:            buffer.MakeWithData(quoted),
	})
	h := header.ICMPv6(pkt.TransportHeader().Push(header.ICMPv6DstUnreachableMinimumSize))
	h.SetType(header.ICMPv6DstUnreachable)
	h.SetCode(header.ICMPv6PortUnreachable)
	h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: h, Src: local, Dst: remote,
		PayloadCsum: checksum.Checksum(quoted, 0), PayloadLen: len(quoted),
	}))
	pkt.TransportProtocolNumber = header.ICMPv6ProtocolNumber
	return pkt
}
