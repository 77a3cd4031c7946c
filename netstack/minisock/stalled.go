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
// not acknowledged, which it reports, the stack is made to send: Sink.Stalled. attempt
// is how often that has been tried in vain.
func (t *Table) Stalled(h Handle, end uint32, attempt int) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	var out outcome
	ok = p.hasEndpoint() && before(p.sndUna, end)
	switch {
	case !ok || p.cliWnd == 0: // its window is probed, which has a timer
	case p.has(finOut) && p.sndUna == p.finOut-1: // a packet too big it can not be
		t.count(FinAgain)
		out.reply = p.fin()
	default:
		t.count(Nudged)
		out.reply.key, out.mtu = p.flow(), p.smaller(attempt)
	}
	p.unlock()
	t.finish(&out)
	return ok
}

// leastPayload is what smaller goes down to: with less, a segment is nearly all header.
const leastPayload = 8

// smaller is an MTU, without IP's header, that the stack has segments above which are
// as long as they may be, at first, and those of half, a quarter and so on, later. It
// gets no less than it must, for it will not send more from then on.
func (p *place) smaller(attempt int) uint16 {
	local := p.t.announced()
	mss := local.MSS4
	if k := p.flow(); !k.v4() {
		mss = local.MSS6
	}
	mss = min(mss, p.mss)
	if attempt == 0 {
		return tcpHdrLen + mss - 1
	}
	options := p.optionsMost()
	return tcpHdrLen + options + max(leastPayload, (mss-min(mss, options))>>min(attempt, 15))
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
