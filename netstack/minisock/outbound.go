package minisock

import (
	"encoding/binary"
	"time"
)

// Outbound takes a packet from the stack, before the device gets to see it. It may
// be called with the stack's locks held: it calls nothing back.
func (t *Table) Outbound(s *Segment, now time.Duration) (res Result) {
	var g segment
	if !g.read(s, true) {
		return t.dropped(Malformed)
	}
	var p place
	p.lookup(t, &g.key)
	switch {
	case p.record == nil:
		// The stack's own idea of a flow that has gone: never let untranslated
		// numbers out.
		res = t.dropped(NoFlow)
	case !p.hasEndpoint() && (p.state != Creating || !p.has(live)):
		res = p.early(&g)
	default:
		res = p.pass()
		if why := p.kept(&g); why != None {
			res.Verdict, res.Cause = Swallowed, why
			break
		}
		delays := p.delays(&g)
		if p.resends(&g) {
			p.deadline &^= nudging
			res.Again, res.Acked = true, p.sndUna
		}
		why, gone := p.send(&g, now)
		switch {
		case why != None:
			res = Result{Cause: why}
		case delays:
			res.Verdict, res.Cause = Swallowed, DelayedACK
		default:
			res.Gone = gone
		}
	}
	p.unlock()
	return res
}

// early serves what comes before an endpoint stands, and after it is gone.
func (p *place) early(g *segment) Result {
	why := Late
	switch {
	case p.state == Creating && g.flags&syn != 0:
		why = SwallowedSYN
		p.flags |= synSeen
		p.seqD, p.tsD = g.seq, 0
		if g.ts != 0 {
			p.tsD = g.tsVal()
		}
	case p.state == Creating:
		why = NotLive
	}
	p.t.count(why)
	return Result{Verdict: Swallowed, Cause: why, Owner: p.owner, Handle: p.handle()}
}

// kept says why a segment of an endpoint's is not for the client.
func (p *place) kept(g *segment) Cause {
	if p.flags&swallow == 0 && g.flags&syn == 0 {
		return None
	}
	why := p.swallows(g)
	if why != None {
		p.t.count(why)
	}
	return why
}

// send translates a segment of an endpoint's and notes what it says. It returns why
// it must not go out all the same, and whether the record is gone from the endpoint.
func (p *place) send(g *segment, now time.Duration) (why Cause, gone bool) {
	p.outward(g)
	if g.flags&rst != 0 {
		return p.resetOut(g)
	}
	p.sent(g)
	return None, p.flags&(finIn|finOut) != 0 && p.state != Creating && p.progress(now)
}

// swallows says why a segment is not for the client: it belongs to the handshake
// that was played to the stack.
func (p *place) swallows(g *segment) Cause {
	if g.flags&syn != 0 {
		return SwallowedSYN
	}
	p.flags &^= swallow
	if g.flags == ack && g.payload == 0 && g.ack == p.rcvAck {
		p.offer(g)
		return SwallowedACK
	}
	return None
}

// sent notes what goes out.
func (p *place) sent(g *segment) {
	end := g.end()
	if before(p.sndNxt, end) {
		p.sndNxt = end
	}
	if g.flags&fin != 0 && !p.has(finOut) {
		p.flags |= finOut
		p.finOut = end
		// Ours is the first unless it says that theirs has come; FINs that
		// crossed leave both sides in TIME_WAIT (RFC 9293, section 3.6).
		if !p.has(finIn) || before(g.ack, p.finIn) {
			p.flags |= active
		}
	}
	if g.flags&ack != 0 {
		if before(p.rcvAck, g.ack) {
			p.rcvAck = g.ack
		}
		if before(p.cliNxt, g.ack) {
			p.cliNxt = g.ack
		}
		p.offer(g)
	}
	if g.ts != 0 {
		p.tsLast = binary.BigEndian.Uint32(g.tcp[g.ts:])
	}
}

// offer notes the window that the stack has open, whether the client hears of it or
// not.
func (p *place) offer(g *segment) {
	p.ourWnd = g.wnd
	if edge := g.ack + uint32(g.wnd)<<p.ourWS; before(p.rcvMax, edge) {
		p.rcvMax = edge
	}
}

// resetOut lets a RST out if it is about what was sent. The stack resets an endpoint
// more than once, and what comes late could hit the flow's next incarnation, whose
// numbers are others.
func (p *place) resetOut(g *segment) (why Cause, gone bool) {
	if before(g.seq, p.sndUna) || before(p.sndNxt, g.seq) {
		p.t.count(OldResetOut)
		return OldResetOut, false
	}
	p.t.count(ResetOut)
	p.remove()
	return None, true
}
