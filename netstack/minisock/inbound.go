package minisock

import "time"

// Inbound takes a packet from the device, before the stack gets to see it. now may
// be the time that the packet's batch was read at.
func (t *Table) Inbound(s *Segment, now time.Duration) (res Result) {
	var g segment
	if !g.read(s, false) {
		return t.dropped(Malformed)
	}
	if g.odd() {
		return t.dropped(OddFlags)
	}
	var p place
	p.lookup(t, &g.key)
	if p.record != nil && p.hasEndpoint() && g.flags&(syn|rst) == 0 && p.flaw(&g, now) == None {
		res = p.pass()
		was := p.sndUna
		res.Gone = p.receive(&g, now)
		if p.record != nil && p.flags&lossy != 0 {
			p.steps(&g, p.sndUna-was, &res)
		}
		p.unlock()
		return res
	}
	var out outcome
	res = p.inbound(&g, now, &out)
	p.unlock()
	t.finish(&out)
	return res
}

// inbound is for all that is not the usual segment of a connection.
func (p *place) inbound(g *segment, now time.Duration, out *outcome) Result {
	if p.record == nil {
		return p.unknown(g, now, out)
	}
	switch p.state {
	case Dialing:
		return p.dialing(g)
	case SynReceived:
		return p.synReceived(g, now, out)
	case Creating:
		return p.creating(g, now, out)
	case TimeWait, Linger:
		return p.closed(g, now, out)
	case Free, Established, CloseWait, FinWait1, FinWait2, Closing, LastAck, NumStates:
	}
	if p.has(orphan) {
		return p.orphaned(g, now, out)
	}
	return p.connected(g, now, out)
}

func (t *Table) dropped(why Cause) Result {
	t.count(why)
	return Result{Cause: why}
}

// unknown serves a segment of no flow.
func (p *place) unknown(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	switch {
	case g.flags&rst != 0:
		return t.dropped(UnknownRST)
	case g.flags&(syn|ack) == syn:
		t.count(SYN)
		return p.newFlow(g, 0, now, out)
	case g.flags&syn != 0:
		// Nobody here opens connections towards the device, so it answers a
		// SYN that somebody sent in our name: our own SYN-ACK, forwarded back to
		// us, in the worst case. A RST would go the same way.
		return t.dropped(UnknownSYNAck)
	}
	if o, ok := t.cookies.check(t, g, now); ok {
		return p.cookieFlow(g, &o, now, out)
	}
	return p.rejected(g, now, out)
}

// rejected answers a segment of no flow with RST (RFC 9293, section 3.10.7.1), as
// far as the limits allow.
func (p *place) rejected(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	if !t.sourceResets.allow(t.seed.address(g.key.source()), now) || !t.resets.allow(now) {
		return t.dropped(UnknownLimited)
	}
	out.reply = g.rejection()
	return t.dropped(UnknownReset)
}

// rejection is the RST that the segment deserves.
func (g *segment) rejection() reply {
	r := reply{key: g.key, queue: g.queue, flags: rst}
	if g.flags&ack != 0 {
		r.seq = g.ack
	} else {
		r.flags, r.ack = rst|ack, g.end()
	}
	return r
}
