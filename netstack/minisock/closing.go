package minisock

import (
	"sync/atomic"
	"time"
)

// progress moves a connection on with the FINs that were seen, and reports whether
// it has left its endpoint by that.
func (p *place) progress(now time.Duration) bool {
	in, out := p.has(finIn), p.has(finOut)
	acked := out && !before(p.sndUna, p.finOut)
	switch {
	case in && acked && !before(p.rcvAck, p.finIn):
		mine := p.has(orphan)
		p.over(now)
		return !mine
	case in && !out:
		p.setState(CloseWait)
	case out && !acked && !in:
		p.setState(FinWait1)
	case acked: // theirs, if it came, is not acknowledged yet
		p.setState(FinWait2)
	case p.has(active):
		p.setState(Closing)
	default:
		p.setState(LastAck)
	}
	return false
}

// over begins the time after a connection. Who closed first owes TIME_WAIT; but the
// other side is kept for a moment as well, or what is still on its way would draw a
// RST.
func (p *place) over(now time.Duration) {
	t := p.t
	if t.closed.Load() >= int64(t.o.MaxTimeWait) {
		t.count(TimeWaitFull)
		p.remove()
		return
	}
	atomic.StoreUint32(&p.owner, 0)
	if p.has(active) {
		t.count(TimeWaitEntered)
		p.setState(TimeWait)
		p.arm(waiting, now)
		return
	}
	p.setState(Linger)
	p.arm(lingering, now)
}

// closed serves a connection that is over (RFC 9293, section 3.10.7.4; Linux's
// tcp_timewait_state_process).
func (p *place) closed(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	switch {
	case g.flags&rst != 0:
		return t.dropped(TimeWaitReset) // RFC 1337, fix F1
	case g.flags&(syn|ack) == syn && p.mayReuse(g):
		t.count(TimeWaitReused)
		t.count(SYN)
		// Behind everything that the old connection sent (RFC 1122, 4.2.2.13).
		isn := p.sndNxt + 1<<16 + 1
		if isn == 0 {
			isn++
		}
		p.remove()
		return p.newFlow(g, isn, now, out)
	case g.flags&syn == 0 && g.bare() && g.seq == p.rcvAck && !p.old(g):
		return t.dropped(TimeWaitQuiet)
	}
	// It may be the client's FIN, whose ACK was lost; but a SYN that is too old, as
	// one of random numbers may be, must not keep its client out for ever.
	if p.state == TimeWait && (g.flags&(syn|ack) != syn || p.old(g)) {
		p.arm(waiting, now)
	}
	if p.limited(now) {
		return t.dropped(TimeWaitLimited)
	}
	p.queue = g.queue
	out.reply = p.ackNow()
	return t.dropped(TimeWaitStray)
}

// mayReuse reports whether a SYN begins a new connection rather than being an old
// one's: by its timestamp if both have one (RFC 6191), else by its sequence number
// (RFC 1122, section 4.2.2.13). A client that closed first knows what it does.
func (p *place) mayReuse(g *segment) bool {
	if p.old(g) || p.t.o.NoTimeWaitReuse && p.state == TimeWait {
		return false
	}
	newer := g.ts != 0 && p.has(withTS) && before(p.tsRecent, g.tsVal())
	return newer || before(p.cliNxt-1, g.seq) || p.state == Linger
}

// Orphan takes a connection over from its endpoint: the application is gone, our FIN
// is sent, and nothing but that FIN is unacknowledged. The record then waits for the
// client's FIN (FIN_WAIT_2), or sends ours again (LAST_ACK), within
// Options.FinTimeout and OrphanRetries. The endpoint is to be aborted at once; what
// it sends by that is swallowed. Past Options.MaxOrphans the client gets a RST.
// False: not yet, or the record has gone.
func (t *Table) Orphan(h Handle, now time.Duration) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	var out outcome
	ok = p.hasEndpoint() && p.has(finOut) && p.sndNxt == p.finOut && !before(p.sndUna, p.finOut-1) && p.cliNxt == p.rcvAck
	switch {
	case !ok:
	case t.orphans.Load() >= int64(t.o.MaxOrphans):
		t.count(OrphanFull)
		out.reply = p.reset()
		p.remove()
	default:
		t.count(Orphaned)
		t.orphans.Add(1)
		p.flags = p.flags&^served | orphan
		p.tries = 0
		atomic.StoreUint32(&p.owner, 0)
		p.await(now)
	}
	p.unlock()
	t.finish(&out)
	return ok
}

// await arms the timer that an orphan's state has.
func (p *place) await(now time.Duration) {
	if p.state == FinWait2 {
		p.arm(finishing, now)
		return
	}
	p.arm(backoff0+timer(p.tries), now)
}

// orphaned serves a client whose connection has no endpoint any more.
func (p *place) orphaned(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	switch {
	case g.flags&rst != 0 && g.seq == p.rcvAck:
		t.count(ResetIn)
		p.remove()
		return Result{Cause: ResetIn}
	case g.flags&rst != 0 && (before(g.seq, p.rcvAck) || !before(g.seq, p.rcvMax)):
		return t.dropped(StrayRST)
	case g.flags&rst != 0:
		return p.challenge(ChallengedRST, now, out)
	case g.flags&syn != 0:
		return p.challenge(ChallengedSYN, now, out)
	}
	if why := p.flaw(g, now); why != None {
		return p.challenge(why, now, out)
	}
	p.seen, p.queue = epochs(now), g.queue
	if before(g.end(), p.rcvAck) || before(p.rcvMax, g.seq) {
		return p.challenge(OrphanStray, now, out)
	}
	return p.orphanedSound(g, now, out)
}

// orphanedSound serves a sound segment in the window.
func (p *place) orphanedSound(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	end := g.end()
	if g.payload > 0 && before(p.rcvAck, g.seq+g.payload) || g.flags&fin != 0 && before(p.rcvAck, g.seq) {
		// Data for an application that has gone (RFC 1122, section 4.2.2.13),
		// here or before a FIN that came without it.
		out.reply = g.rejection()
		t.count(OrphanData)
		p.remove()
		return Result{Cause: OrphanData}
	}
	was := p.state
	p.hear(g)
	again := !g.bare() && !before(p.rcvAck, end) // our ACK was lost
	if g.flags&fin != 0 && before(p.rcvAck, end) {
		p.flags |= finIn
		p.finIn, p.cliNxt, p.rcvAck = end, end, end
		out.reply = p.ackNow()
	}
	p.progress(now)
	switch {
	case p.record == nil: // TIME_WAIT is full
		return Result{Cause: None}
	case p.state.over():
	case p.state != was:
		p.tries = 0
		p.await(now)
	}
	if again && !p.limited(now) {
		out.reply = p.ackNow()
	}
	return Result{Cause: None}
}
