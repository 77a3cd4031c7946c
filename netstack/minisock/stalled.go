package minisock

// resends reports whether a segment of the stack's is data, or a FIN, that it has sent
// before and that is not acknowledged. It must be called before the segment is
// translated and noted as sent.
//
// It may be the last that the stack sends of its own accord. gVisor's RACK counts too
// few segments in flight after a recovery. When none is left by its count, and a tail
// loss probe has not mended all, it has nothing armed to send the rest again: the
// connection would hang until one side gives it up. So the caller is told of each
// segment that is sent again, and looks later whether it was acknowledged: Stalled.
func (p *place) resends(g *segment) bool {
	seq := g.seq + p.seqD
	return !g.bare() && before(seq, p.sndNxt) && before(p.sndUna, g.end()+p.seqD)
}

// Stalled is to be called when the stack has sent nothing again, for longer than it
// ever waits, since a segment which Outbound let pass with Result.Again. If that is
// not acknowledged, which it reports, the stack is made to send: Sink.Stalled. The walk
// of Probe does the same where a client has acknowledged nothing for nudgeAfter.
func (t *Table) Stalled(h Handle, end uint32) (unacknowledged bool) {
	for attempt := range attempts {
		p, ok := t.resolve(h)
		if !ok {
			return false
		}
		if sent := p.deadline&nudging == 0; attempt > 0 && sent {
			p.unlock()
			return true
		}
		var out outcome
		unacknowledged, told := p.nudge(end, attempt, &out)
		p.unlock()
		t.finish(&out)
		if !told {
			return unacknowledged
		}
	}
	// There is nothing that long.
	if p, ok := t.resolve(h); ok {
		p.deadline &^= nudging
		p.unlock()
	}
	return true
}

// attempts is how many nudges it takes to come down to leastPayload. They follow one
// another at once: each sets the stack's timer anew, should it have one after all.
const attempts = 14

// nudging is a bit of deadline: the stack is being made to send, and has not yet.
const nudging = 1 << 31

// nudge makes a stack send that has stopped, or sends a FIN if only that is missing, and
// reports whether it was told to.
func (p *place) nudge(end uint32, attempt int, out *outcome) (unacknowledged, told bool) {
	p.deadline &^= nudging
	unacknowledged = p.hasEndpoint() && before(p.sndUna, end)
	switch {
	case !unacknowledged || p.cliWnd == 0: // its window is probed, which has a timer
	case p.has(finOut) && p.sndUna == p.finOut-1: // a packet too big it can not be
		p.t.count(FinAgain)
		out.reply = p.fin()
	default:
		p.t.count(Nudged)
		p.deadline |= nudging
		out.reply.key, out.mtu = p.flow(), p.smaller(attempt)
		return true, true
	}
	return unacknowledged, false
}

// leastPayload is what smaller goes down to: with less, a segment is nearly all header.
const leastPayload = 8

// smaller is an MTU, without IP's header, that the stack has segments above which are
// as long as they may be, at first, and later those of half that and so on. It is no
// less than it must be, for the stack will not send longer ones from then on.
func (p *place) smaller(attempt int) uint16 {
	payload := p.payloadMost()
	if attempt == 0 {
		payload = max(payload, leastPayload+1) - 1
	} else {
		payload = max(payload/2, leastPayload)
	}
	p.mss = p.optionsMost() + payload
	return tcpHdrLen + p.mss
}

// payloadMost is how long the stack's segments are that are as long as they may be.
func (p *place) payloadMost() uint16 {
	local := p.t.announced()
	mss, options := min(local.MSS4, p.mss), p.optionsMost()
	if k := p.flow(); !k.v4() {
		mss = min(local.MSS6, p.mss)
	}
	return mss - min(mss, options)
}

// optionsMost is how much of a segment the stack sets apart for options: timestamps,
// and as many SACK blocks as fit.
func (p *place) optionsMost() uint16 {
	switch {
	case p.has(withTS | withSACK):
		return 40
	case p.has(withSACK):
		return 36
	case p.has(withTS):
		return 12
	}
	return 0
}
