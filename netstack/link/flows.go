package link

import (
	"context"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

// Owner does what the table of flows cannot do by itself. Its methods are called on
// the goroutine that read the packet, with no lock held; packets given are its own.
type Owner interface {
	// Dial asks for the upstream of a new flow.
	Dial(r minisock.Result, id *offload.Packet)
	// Create makes an endpoint, for which pkt is to be kept if it is not nil.
	Create(r minisock.Result, pkt *stack.PacketBuffer)
	// Hold keeps pkt behind the flow's others.
	Hold(r minisock.Result, pkt *stack.PacketBuffer)
}

// Now is the time by the clock of Options.Flows.
func (e *Endpoint) Now() time.Duration { return e.clock.NowMonotonic().Sub(e.start) }

// judge shows a packet, whose headers begin head, to the table of flows, and reports
// whether there is something to do with it: hand.
func (q *queue) judge(p *offload.Packet, head []byte) (r minisock.Result, ok bool) {
	if q.e.flows == nil || p.Fragment {
		return minisock.Result{Verdict: minisock.Pass}, true
	}
	switch p.Proto {
	case offload.ProtoTCP:
		return q.judgeTCP(p, head)
	case offload.ProtoICMP, offload.ProtoICMPv6:
		return minisock.Result{Verdict: minisock.Pass}, q.judgeICMP(p, head)
	}
	return minisock.Result{Verdict: minisock.Pass}, true
}

func (q *queue) judgeTCP(p *offload.Packet, head []byte) (minisock.Result, bool) {
	s := minisock.Segment{
		IP: head[:p.L3Len], TCP: head[p.L3Len : p.L3Len+p.L4Len], Payload: p.PayloadLen,
		Partial: true,            // its sum was verified, or never made, and nobody looks again
		Queue:   uint16(q.index), //nolint:gosec // at most tundev.MaxQueues
		Pressed: q.press.pressed,
		Later:   q.later.room(),
	}
	r := q.e.flows.Inbound(&s, q.clock)
	if r.Verdict != minisock.Pass || r.Gone {
		q.e.Hurry()
	}
	switch r.Verdict {
	case minisock.Pass, minisock.Hold:
		if r.Step > 0 {
			q.stepwise(p, head[:p.L3Len+p.L4Len], &r)
		}
		return r, true
	case minisock.Dial:
		q.e.owner.Dial(r, p)
	case minisock.Create:
		if r.Held {
			return r, true
		}
		q.e.owner.Create(r, nil)
	case minisock.Later:
		q.later.add(head[:p.L3Len+p.L4Len])
	case minisock.Dropped, minisock.Swallowed, minisock.NumVerdicts:
	}
	return r, false
}

// judgeICMP lets an ICMP error pass only if it is about what is in flight.
func (q *queue) judgeICMP(p *offload.Packet, head []byte) bool {
	icmp := head[p.L3Len:]
	if len(icmp) < icmpHdrLen {
		return true // the stack will count it
	}
	e := minisock.Unreachable{Quoted: icmp[icmpHdrLen:]}
	be16 := func(i int) int { return int(icmp[i])<<8 | int(icmp[i+1]) }
	switch {
	case p.Version == 4 && icmp[0] == uint8(header.ICMPv4DstUnreachable):
		e.Hard = icmp[1] == 2 || icmp[1] == 3 || icmp[1] == 13
		if icmp[1] == uint8(header.ICMPv4FragmentationNeeded) {
			e.MTU = be16(6)
		}
	case p.Version == 6 && icmp[0] == uint8(header.ICMPv6DstUnreachable):
		e.Hard = icmp[1] == 1 || icmp[1] == 4
	case p.Version == 6 && icmp[0] == uint8(header.ICMPv6PacketTooBig):
		e.MTU = be16(4)<<16 | be16(6)
	default:
		return true // no error, or not one that TCP hears of
	}
	if !quotesTCP(e.Quoted) {
		return true
	}
	return q.e.flows.ICMPError(&e).Verdict == minisock.Pass
}

// quotesTCP reports whether an ICMP error is about TCP.
func quotesTCP(b []byte) bool {
	switch {
	case len(b) >= header.IPv4MinimumSize && b[0]>>4 == 4:
		return b[9] == offload.ProtoTCP
	case len(b) >= header.IPv6MinimumSize && b[0]>>4 == 6:
		return b[6] == offload.ProtoTCP
	}
	return false
}

// hand gives a packet to whom it is for by judge's result: the stack, mostly.
func (q *queue) hand(version uint8, b buffer.Buffer, r *minisock.Result) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
	switch r.Verdict {
	case minisock.Create:
		q.e.owner.Create(*r, pkt)
	case minisock.Hold:
		q.e.owner.Hold(*r, pkt)
	default:
		q.e.deliver(networkProtocol(version), pkt)
	}
}

// Hurry is to be called when a record may have begun to wait for a time otherwise than
// by a packet, and perhaps none did before. It may be called under the stack's locks.
func (e *Endpoint) Hurry() { e.tick.hurry() }

// Inject gives the stack a packet as if it came from the device, past the table of
// flows, and takes the reference.
func (e *Endpoint) Inject(pkt *stack.PacketBuffer) {
	version := uint8(4)
	if b, ok := pkt.Data().PullUp(1); ok {
		version = b[0] >> 4
	}
	e.deliver(networkProtocol(version), pkt)
}

// Emit writes an IP packet to its destination by a queue.
func (e *Endpoint) Emit(packet []byte, queue uint16) {
	queues := e.device.Load().queues
	q := queues[int(queue)%len(queues)]
	var p offload.Packet
	if offload.Parse(&p, packet, len(packet)) != offload.OK {
		e.drop(DropTxBuild)
		return
	}
	q.sendPacket(p.Dst, packet)
}

// Look lets f see the TCP header of each SYN of the stack's, which goes no further if
// it returns true; nil ends it.
func (e *Endpoint) Look(f func(tcp []byte) bool) {
	if f == nil {
		e.look.Store(nil)
		return
	}
	e.look.Store(&f)
}

// admits shows a packet of the stack to the table of flows, and returns whether it
// may leave, and by which queue.
func (e *Endpoint) admits(pkt *stack.PacketBuffer) (queue uint16, ok bool) {
	tcp := pkt.TransportHeader().Slice()
	if len(tcp) < header.TCPMinimumSize {
		return 0, false
	}
	if f := e.look.Load(); f != nil && tcp[13]&offload.TCPSyn != 0 && (*f)(tcp) {
		return 0, false
	}
	s := minisock.Segment{IP: pkt.NetworkHeader().Slice(), TCP: tcp, Payload: pkt.Data().Size(), Partial: true}
	now := e.Now()
	r := e.flows.Outbound(&s, now)
	switch {
	case r.Cause == minisock.DelayedACK:
		e.owing.add(r.Handle, header.TCP(tcp).AckNumber(), now)
	case r.Gone:
		e.Hurry()
	case r.Again && r.Verdict == minisock.Pass:
		e.stalls.add(r.Handle, r.Acked, pkt)
	}
	return r.Queue, r.Verdict == minisock.Pass
}

// ticker calls the table's Tick when that is due.
type ticker struct {
	e    *Endpoint
	idle atomic.Bool // nothing is due
	kick chan struct{}
}

// The table's timers need be as exact as tickEvery: the shortest is a second. While
// there are any it is asked again after tickMost, since one may have come that is due
// before the rest.
const (
	tickEvery = 100 * time.Millisecond
	tickMost  = 500 * time.Millisecond
)

func newTicker(e *Endpoint) *ticker { return &ticker{e: e, kick: make(chan struct{}, 1)} }

// hurry wakes run if it had nothing to wait for.
func (t *ticker) hurry() {
	if t.idle.Load() && t.idle.Swap(false) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

func (t *ticker) run(ctx context.Context) {
	timer := t.e.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			t.e.flows.Tick(t.e.Now())
		case <-t.kick:
		}
		timer.Stop()
		t.idle.Store(true) // before the look, so that a hurry in between is seen
		if next := t.e.flows.Next(t.e.Now()); next != minisock.Never {
			t.idle.Store(false)
			timer.Reset(min(tickMost, max(tickEvery, next-t.e.Now())))
		}
	}
}
