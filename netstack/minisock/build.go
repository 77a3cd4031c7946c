package minisock

import (
	"encoding/binary"
	"time"

	"github.com/tungate/tungate/offload"
)

// packetMax is the longest packet that is made here: an IPv6 header and a TCP one
// with all the options there is room for.
const packetMax = 40 + 60

type packet [packetMax]byte

// reply is a segment to be made. It is a value, so that it can be taken down under a
// lock and made when that is free. The zero reply is none.
type reply struct {
	key      key
	flags    uint8
	isSYN    bool // syn holds the options
	hasTS    bool // syn's timestamps are the options
	queue    uint16
	wnd      uint16
	seq, ack uint32
	syn      SYNOptions
}

// outcome is what a call has to tell when its lock is free.
type outcome struct {
	reply reply
	gone  Handle // valid iff Valid
	why   Cause
	owner uint32
	ended Cause  // the connection of reply was ended from here; None if not
	mtu   uint16 // its endpoint stalled; 0 if not

	stalled Handle // is to be nudged, valid iff Valid
	end     uint32 // of what its client has not acknowledged
}

// finish tells it. No lock is held.
func (t *Table) finish(out *outcome) {
	if out.reply.flags != 0 {
		b := t.scratch.Get().(*packet)
		t.sink.Emit(out.reply.build(b[:0], false), out.reply.queue)
		t.scratch.Put(b)
	}
	if out.gone.Valid() {
		t.sink.Gone(out.gone, out.owner, out.why)
	}
	if out.ended != None {
		t.sink.Ended(out.reply.key.client(), out.reply.key.destination(), out.ended)
	}
	if out.mtu != 0 {
		t.sink.Stalled(out.reply.key.client(), out.reply.key.destination(), out.mtu)
	}
	if out.stalled.Valid() {
		t.Stalled(out.stalled, out.end)
	}
}

// hopLimit is RFC 1700's; Linux's default as well.
const hopLimit = 64

// build appends the packet to b, with its checksums. It goes to the client, unless
// inbound, when it is one as the client would send it.
func (r *reply) build(b []byte, inbound bool) []byte {
	srcHi, srcLo, dstHi, dstLo, ports := r.key.bHi, r.key.bLo, r.key.aHi, r.key.aLo, r.key.ports<<16|r.key.ports>>16
	if inbound {
		srcHi, srcLo, dstHi, dstLo, ports = dstHi, dstLo, srcHi, srcLo, r.key.ports
	}
	start := len(b)
	be := binary.BigEndian
	if r.key.v4() {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, hopLimit, offload.ProtoTCP, 0, 0) // DF, no ID (RFC 6864)
		b = be.AppendUint32(b, uint32(srcLo&0xffffffff))
		b = be.AppendUint32(b, uint32(dstLo&0xffffffff))
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, offload.ProtoTCP, hopLimit)
		b = be.AppendUint64(be.AppendUint64(b, srcHi), srcLo)
		b = be.AppendUint64(be.AppendUint64(b, dstHi), dstLo)
	}
	l4 := len(b)
	b = be.AppendUint32(b, ports)
	b = be.AppendUint32(be.AppendUint32(b, r.seq), r.ack)
	b = append(b, 0, r.flags, byte(r.wnd>>8), byte(r.wnd&0xff), 0, 0, 0, 0)
	switch {
	case r.isSYN:
		b = r.syn.append(b)
	case r.hasTS:
		b = append(b, optNop, optNop, optTS, 10)
		b = be.AppendUint32(be.AppendUint32(b, r.syn.TSVal), r.syn.TSEcr)
	}
	ip, tcp := b[start:l4], b[l4:]
	tcp[12] = byte(len(tcp) / 4 << 4 & 0xf0)
	pseudo := uint16(offload.ProtoTCP + len(tcp)&0xff)
	if r.key.v4() {
		be.PutUint16(ip[2:], uint16((len(ip)+len(tcp))&0xffff))
		be.PutUint16(ip[10:], ^offload.Sum(ip, 0))
		pseudo = offload.Sum(ip[12:20], pseudo)
	} else {
		be.PutUint16(ip[4:], uint16(len(tcp)&0xffff))
		pseudo = offload.Sum(ip[8:40], pseudo)
	}
	be.PutUint16(tcp[16:], ^offload.Sum(tcp, pseudo))
	return b
}

// answer is a segment from the record, with its timestamps.
func (p *place) answer(flags uint8, seq uint32) reply {
	wnd := p.ourWnd
	if p.state == SynReceived { // it is the SYN-ACK's, which is not scaled
		wnd >>= p.ourWS
	}
	return reply{
		key: p.flow(), flags: flags, queue: p.queue, wnd: wnd, seq: seq, ack: p.rcvAck,
		hasTS: p.has(withTS), syn: SYNOptions{TSVal: p.tsLast, TSEcr: p.tsRecent},
	}
}

// ackNow says where we are (RFC 9293, section 3.10.7.4: an unacceptable segment is
// answered by an ACK).
func (p *place) ackNow() reply { return p.answer(ack, p.sndNxt) }

// reset is the RST that ends the connection from here.
func (p *place) reset() reply {
	r := p.answer(rst|ack, p.sndNxt)
	r.hasTS = false
	return r
}

// fin is the orphan's FIN once more.
func (p *place) fin() reply { return p.answer(fin|ack, p.finOut-1) }

// limited reports whether the flow, or all flows, had such an answer too lately.
// RFC 5961, section 10, wants the limit; that it is the flow's first keeps others
// from measuring it (CVE-2016-5696).
func (p *place) limited(now time.Duration) bool {
	ms := millis(now)
	if ms-p.answered < p.t.waits.invalid || !p.t.challenges.allow(now) {
		return true
	}
	p.answered = ms
	return false
}
