package minisock

// delayedMost is how many bytes an ACK may acknowledge that waits: a segment of
// Ethernet's, since every second full one is to be acknowledged at once (RFC 9293,
// section 3.8.6.3).
const delayedMost = 1460

// promptFor is how many bytes, a power of two, are sent on average before a flow whose
// delay was in vain is tried again.
const promptFor = 64

// delays notes whether a segment of the stack's is an ACK that may wait for data to
// go with: a request is answered soon, and to acknowledge it by itself costs the
// device a write and the client a packet (RFC 9293, section 3.8.6.3). The stack
// acknowledges each segment at once and cannot be told otherwise. It must be called
// before the segment is noted as sent.
//
// Never delayed is what says more than that little data came: a window, a duplicate,
// SACK; the second in a row; and what nothing can follow, after our FIN.
func (p *place) delays(g *segment) bool {
	if !p.t.o.DelayACKs {
		return false
	}
	was := p.flags & owed
	p.flags &^= owed
	if p.flags&prompt != 0 && g.payload > 0 && g.seq%promptFor == 0 {
		p.flags &^= prompt
	}
	if g.flags != ack || g.payload > 0 || was|p.flags&(prompt|finOut) != 0 {
		return false
	}
	if bare := len(g.tcp) == 20 || g.ts != 0 && len(g.tcp) == 32; !bare {
		return false
	}
	if more := g.ack - p.rcvAck; more == 0 || more > delayedMost {
		return false
	}
	p.t.count(DelayedACK)
	p.flags |= owed
	return true
}

// Acknowledge sends the ACK with this number that Outbound kept back with cause
// DelayedACK, unless it, or a later one, has gone out since.
func (t *Table) Acknowledge(h Handle, number uint32) {
	p, ok := t.resolve(h)
	if !ok {
		return
	}
	var out outcome
	if p.has(owed) && p.rcvAck == number {
		p.flags = p.flags&^owed | prompt
		t.count(DelayInVain)
		out.reply = p.ackNow()
	}
	p.unlock()
	t.finish(&out)
}
