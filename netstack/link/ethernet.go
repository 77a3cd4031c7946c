package link

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/offload"
)

// ethernet is what a TAP has and a TUN has not: a header before each packet, and
// neighbors to find for it.
type ethernet struct {
	e    *Endpoint
	lan  *lan.LAN
	kick chan struct{} // lan.Next may be earlier than before
}

func newEthernet(e *Endpoint, l *lan.LAN) *ethernet {
	return &ethernet{e: e, lan: l, kick: make(chan struct{}, 1)}
}

// run calls lan.Tick when it is due, and says farewell in the end.
func (t *ethernet) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			t.lan.Farewell(time.Now(), t.send)
			return
		case now := <-timer.C:
			t.lan.Tick(now, t.send)
		case <-t.kick:
		}
		timer.Stop()
		if next := t.lan.Next(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// hurry lets run look at lan.Next again.
func (t *ethernet) hurry() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *ethernet) linkUp() {
	t.lan.LinkUp(time.Now())
	t.hurry()
}

// send writes a frame of the LAN's own to the first queue.
func (t *ethernet) send(frame []byte) { t.e.device.Load().queues[0].sendFrame(frame) }

// sendFrame writes a whole Ethernet frame.
func (q *queue) sendFrame(frame []byte) {
	var hdr [hdrLen]byte
	iov := [2]unix.Iovec{vector(&hdr[0], hdrLen), vector(&frame[0], len(frame))}
	if err := q.backlog.write(iov[:]); err != nil {
		q.e.dropWrite(err)
		return
	}
	q.counters.tx.count(len(frame)-lan.HdrLen, false, false)
}

// input takes a frame of n bytes to the LAN, and reports whether it is a packet for
// the stack. whole gathers the frame if the LAN needs all of it.
func (t *ethernet) input(q *queue, verified bool, head []byte, n int) bool {
	f := lan.Frame{Data: head, Len: n, Verified: verified}
	v := t.lan.Input(f, q.now, q.reply)
	if v == lan.Incomplete {
		f.Data = q.receiver.whole(n)
		v = t.lan.Input(f, q.now, q.reply)
	}
	if v == lan.Deliver {
		return true
	}
	if v == lan.Consumed {
		t.hurry()
	}
	return false
}

// toIP makes the offsets of a frame's header those of the packet in it, and reports
// whether that can be.
func toIP(h *offload.Hdr) bool {
	if h.Flags&offload.FlagNeedsCsum == 0 {
		return true
	}
	if h.CsumStart < lan.HdrLen {
		return false
	}
	h.CsumStart -= lan.HdrLen
	return true
}

// resolved writes the Ethernet header of an outbound packet to f, or lets the
// packet wait until it is known who gets it, and reports which.
func (t *ethernet) resolved(f *frame, pkt *stack.PacketBuffer, queue int) bool {
	_, dst := outboundAddresses(pkt)
	to, ok := t.lan.Lookup(dst)
	if !ok {
		t.lan.Resolve(dst, &pending{t.e, pkt.IncRef(), queue}, time.Now(), t.send)
		t.hurry()
		return false
	}
	t.header(f, to, pkt)
	return true
}

func (t *ethernet) header(f *frame, to lan.MAC, pkt *stack.PacketBuffer) {
	h := lan.Header{Dst: to, Src: t.lan.MAC(), Type: lan.TypeIPv4}
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		h.Type = lan.TypeIPv6
	}
	h.Encode(f.ethernet[:])
}

// sendPacket writes an IP packet of this package's own to the station that dst is
// at, as soon as that is known.
func (t *ethernet) sendPacket(q *queue, dst netip.Addr, packet []byte) {
	frame := make([]byte, lan.HdrLen, lan.HdrLen+len(packet))
	p := &pendingFrame{q, append(frame, packet...)}
	if to, ok := t.lan.Lookup(dst); ok {
		p.Send(to)
		return
	}
	t.lan.Resolve(dst, p, time.Now(), t.send)
	t.hurry()
}

// pendingFrame is a frame that lacks its Ethernet header.
type pendingFrame struct {
	q     *queue
	frame []byte
}

// Send implements lan.Pending.
func (p *pendingFrame) Send(to lan.MAC) {
	h := lan.Header{Dst: to, Src: p.q.e.lan.lan.MAC(), Type: lan.TypeIPv4}
	if p.frame[lan.HdrLen]>>4 == 6 {
		h.Type = lan.TypeIPv6
	}
	h.Encode(p.frame)
	p.q.sendFrame(p.frame)
}

// Drop implements lan.Pending.
func (p *pendingFrame) Drop() {}

// pending is an outbound packet whose station is being asked for.
type pending struct {
	e     *Endpoint
	pkt   *stack.PacketBuffer
	queue int
}

// Send implements lan.Pending.
func (p *pending) Send(to lan.MAC) {
	f := frames.Get().(*frame)
	p.e.lan.header(f, to, p.pkt)
	p.e.transmit(f, p.pkt, p.queue)
	f.release()
	frames.Put(f)
	p.pkt.DecRef()
}

// Drop implements lan.Pending.
func (p *pending) Drop() { p.pkt.DecRef() }
