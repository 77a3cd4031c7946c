package link

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

// stepsMost is how many ACKs are shown before one.
const stepsMost = 64

// stepwise delivers what a packet of these headers acknowledges in steps, before the
// packet itself does: minisock's Result.Step says why.
func (q *queue) stepwise(p *offload.Packet, head []byte, r *minisock.Result) {
	step := uint32(r.Step)
	if n := r.Fresh / step; n > stepsMost {
		step *= (n + stepsMost - 1) / stepsMost
	}
	last := binary.BigEndian.Uint32(head[p.L3Len+8:])
	for at := step; at < r.Fresh; at += step {
		b := buffer.NewViewWithData(head)
		bare(b.AsSlice(), p, last-r.Fresh+at)
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(b)})
		q.e.deliver(networkProtocol(p.Version), pkt)
	}
}

// bare makes headers those of an ACK with this number and without data. The checksum is
// left, for nobody looks at it again.
func bare(head []byte, p *offload.Packet, number uint32) {
	if p.Version == 4 {
		binary.BigEndian.PutUint16(head[2:], uint16(len(head))) //nolint:gosec // headers
		head[10], head[11] = 0, 0
		binary.BigEndian.PutUint16(head[10:], ^offload.Sum(head[:p.L3Len], 0))
	} else {
		binary.BigEndian.PutUint16(head[4:], uint16(len(head)-40)) //nolint:gosec // headers
	}
	tcp := head[p.L3Len:]
	binary.BigEndian.PutUint32(tcp[8:], number)
	tcp[13] = offload.TCPAck
}
