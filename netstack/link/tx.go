package link

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/offload"
)

// frame is the scratch of one outbound packet.
type frame struct {
	hdr      offload.Hdr
	raw      [hdrLen]byte
	ethernet [lan.HdrLen]byte // of a TAP
	iov      []unix.Iovec
	slices   [][]byte
	packet   offload.Packet
	segment  offload.Segmenter
	out      offload.Segment
}

// frames is a pool per process: frames hold no state between packets.
var frames = sync.Pool{New: func() any { return &frame{iov: make([]unix.Iovec, 0, 24)} }}

// WritePackets implements stack.LinkWriter. It reports every packet as sent: what
// the device would not take is counted and lost, as on a wire, and TCP repairs it.
func (e *Endpoint) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	f := frames.Get().(*frame)
	for _, pkt := range list.AsSlice() {
		if queue, ok := e.choose(pkt); ok && (e.lan == nil || e.lan.resolved(f, pkt, queue)) {
			e.transmit(f, pkt, queue)
		}
	}
	f.release()
	frames.Put(f)
	return list.Len(), nil
}

// release forgets the packets' memory.
func (f *frame) release() {
	clear(f.iov[:cap(f.iov)])
	clear(f.slices[:cap(f.slices)])
}

// maxRefusals is how many superframes the device may refuse before it gets no
// more: one could be the fault of its very frame, three in a gateway's life are the
// kernel's (6.6.44 refused valid ones).
const maxRefusals = 3

// choose returns the queue that a packet leaves by, false if it does not.
func (e *Endpoint) choose(pkt *stack.PacketBuffer) (int, bool) {
	if e.flows != nil && pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		queue, ok := e.admits(pkt)
		return int(queue), ok
	}
	return e.device.Load().steer.queue(pkt), true
}

// transmit encodes one packet and writes it; on a TAP f.ethernet is complete.
func (e *Endpoint) transmit(f *frame, pkt *stack.PacketBuffer, queue int) {
	d := e.device.Load()
	q := d.queues[queue%len(d.queues)]
	f.hdr = offload.Hdr{}
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber && len(pkt.TransportHeader().Slice()) >= header.TCPMinimumSize {
		e.partialChecksum(f, pkt)
	}
	super := f.hdr.GSOType != offload.GSONone
	f.collect(pkt)
	if super && !d.takes(f.hdr.GSOType) {
		q.sendSegments(f)
		return
	}
	if f.hdr.Flags&offload.FlagNeedsCsum != 0 && !d.features.Checksum && !offload.Complete(&f.hdr, f.slices) {
		e.drop(DropTxBuild)
		return
	}
	err := q.write(f, f.slices)
	switch {
	case err == nil:
		q.counters.tx.count(pkt.Size(), super, f.hdr.Flags&offload.FlagNeedsCsum != 0)
	case super && errors.Is(err, unix.EINVAL):
		q.counters.tx.refused.Add(1)
		if d.refusals.Add(1) >= maxRefusals {
			d.tso.Store(false)
		}
		q.sendSegments(f)
	default:
		e.dropWrite(err)
	}
}

// takes reports whether superframes of type t may be written.
func (d *device) takes(t offload.GSOType) bool {
	if !d.tso.Load() {
		return false
	}
	if t == offload.GSOTCPv6 {
		return d.features.TSO6
	}
	return d.features.TSO4
}

// dropWrite counts a frame that the device did not take.
func (e *Endpoint) dropWrite(err error) {
	if full(err) {
		e.drop(DropTxFull)
		return
	}
	e.drop(DropTxError)
}

// partialChecksum fills the virtio_net_hdr of a TCP packet and makes sure that
// its checksum field holds the pseudo-header sum, which is what NEEDS_CSUM means.
func (e *Endpoint) partialChecksum(f *frame, pkt *stack.PacketBuffer) {
	l3 := len(pkt.NetworkHeader().Slice())
	tcp := header.TCP(pkt.TransportHeader().Slice())
	payload := pkt.Data().Size()
	if !pkt.GSOOptions.NeedsCsum {
		src, dst := outboundAddresses(pkt) // pkt.Network() is an allocation
		tcp.SetChecksum(offload.PseudoSum(src, dst, offload.ProtoTCP, len(tcp)+payload))
	}
	f.hdr.Flags = offload.FlagNeedsCsum
	f.hdr.CsumStart = uint16(l3) //nolint:gosec // at most 60 bytes
	f.hdr.CsumOffset = header.TCPChecksumOffset
	if pkt.GSOOptions.Type == stack.GSONone || payload <= int(pkt.GSOOptions.MSS) {
		return
	}
	f.hdr.GSOType = offload.GSOTCPv4
	if pkt.GSOOptions.Type == stack.GSOTCPv6 {
		f.hdr.GSOType = offload.GSOTCPv6
	}
	f.hdr.GSOSize = pkt.GSOOptions.MSS
	f.hdr.HdrLen = uint16(l3 + len(tcp)) //nolint:gosec // at most 120 bytes
}

// collect lists the packet's memory, headers first.
func (f *frame) collect(pkt *stack.PacketBuffer) {
	f.slices = f.slices[:0]
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		if skip >= len(s) {
			skip -= len(s)
			continue
		}
		f.slices = append(f.slices, s[skip:])
		skip = 0
	}
}

// sendSegments cuts a superframe for a device that does not take it whole.
func (q *queue) sendSegments(f *frame) {
	e := q.e
	q.counters.tx.software.Add(1)
	head := f.slices[0]
	total := 0
	for _, s := range f.slices {
		total += len(s)
	}
	if v := offload.Parse(&f.packet, head, total); v != offload.OK {
		e.drop(DropTxBuild)
		return
	}
	hl := f.packet.L3Len + f.packet.L4Len
	if hl > len(head) {
		e.drop(DropTxBuild)
		return
	}
	payload := f.slices[1:]
	if hl < len(head) {
		f.slices[0] = head[hl:]
		payload = f.slices
	}
	if v := f.segment.Reset(&f.hdr, &f.packet, head[:hl], payload); v != offload.OK {
		e.drop(DropTxBuild)
		return
	}
	f.hdr = offload.Hdr{}
	for f.segment.Next(&f.out) {
		n := len(f.out.Head)
		for _, s := range f.out.Payload {
			n += len(s)
		}
		if err := q.write(f, f.out.Payload, f.out.Head); err != nil {
			e.dropWrite(err)
			continue
		}
		q.counters.tx.count(n, false, false)
	}
}

// write sends one frame made of head, if any, and slices.
func (q *queue) write(f *frame, slices [][]byte, head ...[]byte) error {
	h := f.hdr
	f.iov = append(f.iov[:0], vector(&f.raw[0], hdrLen))
	if q.ipAt > 0 {
		f.iov = append(f.iov, vector(&f.ethernet[0], lan.HdrLen))
		if h.Flags&offload.FlagNeedsCsum != 0 {
			h.CsumStart += lan.HdrLen
		}
		if h.GSOType != offload.GSONone {
			h.HdrLen += lan.HdrLen
		}
	}
	h.Encode(f.raw[:])
	for _, s := range head {
		f.iov = append(f.iov, vector(&s[0], len(s)))
	}
	for _, s := range slices {
		if len(s) > 0 {
			f.iov = append(f.iov, vector(&s[0], len(s)))
		}
	}
	return q.backlog.write(f.iov)
}
