package minisock

import "time"

// pawsTime is how long a client may be silent before its timestamps are believed
// whatever they say: half the time in which a clock of 1 ms wraps (RFC 7323, section
// 5.5).
const pawsTime = uint32(24 * 24 * time.Hour / epoch)

// old reports whether the segment is of the past, by its timestamp (PAWS).
func (p *place) old(g *segment) bool {
	return g.ts != 0 && p.has(withTS) && before(g.tsVal(), p.tsRecent)
}

// flaw says what is wrong with a segment that has neither SYN nor RST.
func (p *place) flaw(g *segment, now time.Duration) Cause {
	if p.old(g) && epochs(now)-p.seen < pawsTime {
		return OldTimestamp
	}
	// RFC 5961, section 5.2. The window is at least what a client without a
	// scale can have given before the table saw a header of it.
	if before(p.sndNxt, g.ack) || before(g.ack, p.sndUna-max(p.maxWnd, 1<<16)) {
		return ChallengedACK
	}
	return None
}

// pass is the result of a packet that passes, before it is noted: the record may be
// gone afterwards.
func (p *place) pass() Result {
	return Result{Verdict: Pass, Queue: p.queue, Owner: p.owner, Handle: Handle{p.hash, p.i, p.gen}}
}

// receive notes what a sound segment says and translates it for the stack. It
// reports whether the record is gone from the endpoint by that.
func (p *place) receive(g *segment, now time.Duration) bool {
	p.seen, p.queue = epochs(now), g.queue
	if end := g.end(); !before(end, p.rcvAck) && !before(p.rcvMax, g.seq) {
		p.note(g, end)
	}
	if g.wnd != p.cliWnd && p.overtaken(g) {
		g.window(p.cliWnd) // the stack would take it for news
	}
	if p.behind(g) {
		g.sequence(p.rcvAck)
	}
	p.inward(g)
	return p.flags&(finIn|finOut) != 0 && p.state != Creating && p.progress(now)
}

// note keeps what a segment in the window says. Others go up all the same, for the
// stack to answer, but move nothing here: a forged one must not.
func (p *place) note(g *segment, end uint32) {
	edge := p.rcvMax
	if g.flags&fin != 0 && !before(edge+1, end) {
		edge++ // a FIN has room behind a full window
		if !p.has(finIn) {
			p.flags |= finIn
			p.finIn = end
		}
	}
	if before(edge, end) {
		end = edge
	}
	if before(p.cliNxt, end) {
		p.cliNxt = end
	}
	p.hear(g)
}

// hear keeps what a header in the window says of our data and the client's clock.
func (p *place) hear(g *segment) {
	if before(p.sndUna, g.ack) {
		p.sndUna = g.ack
	}
	if p.cliWnd != g.wnd && !p.overtaken(g) {
		p.cliWnd = g.wnd
		p.maxWnd = max(p.maxWnd, p.window())
	}
	if g.ts != 0 && !before(p.rcvAck, g.seq) { // RFC 7323, section 4.3
		p.tsRecent = g.tsVal()
	}
}

// exact reports whether a RST has the one sequence number that counts (RFC 5961,
// section 3.2): the next that the stack has acknowledged, or will when it has seen
// what is on its way up.
func (p *place) exact(g *segment) bool { return g.seq == p.rcvAck || g.seq == p.cliNxt }

// overtaken reports whether a newer ACK has come before this one, whose window is no
// news then (RFC 9293, section 3.10.7.4: SND.WL2).
func (r *record) overtaken(g *segment) bool { return before(g.ack, r.sndUna) }

// behind reports whether g is a bare ACK from behind a window of zero that was open as
// far as that before: what is left of it is less than a unit of a scaled one, and a
// client that has sent that much goes on from its end (Linux, tcp_acceptable_seq). It
// is valid (RFC 9293, section 3.10.7.4: "special allowance should be made to accept
// valid ACKs"), and gVisor would drop it.
func (p *place) behind(g *segment) bool {
	return p.ourWnd == 0 && g.payload == 0 && g.flags&(syn|fin|rst) == 0 &&
		before(p.rcvAck, g.seq) && !before(p.rcvMax, g.seq)
}

// connected serves what is not the usual segment of a connection with an endpoint.
func (p *place) connected(g *segment, now time.Duration, out *outcome) Result {
	switch {
	case g.flags&syn != 0: // RFC 5961, section 4
		return p.challenge(ChallengedSYN, now, out)
	case g.flags&rst != 0 && g.later && g.payload == 0 && p.exact(g):
		p.t.count(ResetLater)
		return Result{Verdict: Later}
	case g.flags&rst != 0:
		return p.resetIn(g, now, out)
	}
	if why := p.flaw(g, now); why != None {
		return p.challenge(why, now, out)
	}
	res := p.pass()
	res.Gone = p.receive(g, now)
	return res
}

func (p *place) resetIn(g *segment, now time.Duration, out *outcome) Result {
	switch {
	case p.exact(g):
	case before(g.seq, p.rcvAck) || !before(g.seq, p.rcvMax):
		return p.t.dropped(StrayRST)
	default:
		return p.challenge(ChallengedRST, now, out)
	}
	p.inward(g)
	res := p.pass()
	// Where the stack is still on its way to cliNxt, it decides; if it takes the
	// RST, its owner hears of it and calls Release.
	if p.rcvAck == p.cliNxt {
		p.t.count(ResetIn)
		res.Gone = true
		p.remove()
	}
	return res
}
