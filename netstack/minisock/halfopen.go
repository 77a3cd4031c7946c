package minisock

import "time"

// newFlow serves the SYN of a flow that has no record. isn is the sequence number to
// begin with, 0 for one of the table's choice.
func (p *place) newFlow(g *segment, isn uint32, now time.Duration, out *outcome) Result {
	t := p.t
	o := t.readSYN(g)
	switch {
	case t.refusing.Load():
		t.count(SYNRefusing)
		return p.rejected(g, now, out)
	case t.records.Load() >= int64(t.o.MaxRecords):
		t.count(TableFull)
		return p.rejected(g, now, out)
	case t.o.AlwaysCookies:
		return p.sendCookie(g, &o, now, out)
	}
	if why := t.enterShares(&g.key); why != None {
		return p.overflow(g, &o, why, now, out)
	}
	if !p.insert(&g.key, now) {
		t.leaveShares(&g.key)
		return t.dropped(TableFull)
	}
	if isn == 0 {
		isn = t.isn(&g.key, now)
	}
	t.count(SYNAdmitted)
	p.flags |= shares
	p.begin(g, &o, g.seq, isn)
	if t.o.Admission == DialFirst {
		p.setState(Dialing)
		p.arm(dialing, now)
		return Result{Verdict: Dial, Handle: p.handle()}
	}
	p.greet(now, out)
	return Result{Handle: p.handle()}
}

// readSYN reads the options of a client's SYN, and what RFC 9293 has for the segment
// size of who does not say it (section 3.7.1).
func (t *Table) readSYN(g *segment) SYNOptions {
	o := ReadSYN(g.tcp)
	o.SACK = o.SACK && !t.o.NoSACK
	switch {
	case o.MSS == 0 && g.key.v4():
		o.MSS = 536
	case o.MSS == 0:
		o.MSS = 1220
	}
	o.MSS = max(o.MSS, uint16(t.o.MinMSS)) //nolint:gosec // Validate bounds it
	return o
}

// overflow serves a SYN that may have no record.
func (p *place) overflow(g *segment, o *SYNOptions, why Cause, now time.Duration, out *outcome) Result {
	switch p.t.o.Overflow {
	case OverflowCookies:
		p.t.count(why)
		return p.sendCookie(g, o, now, out)
	case OverflowReset:
		p.t.count(why)
		return p.rejected(g, now, out)
	case OverflowDrop:
	}
	return p.t.dropped(why)
}

// enterShares counts a half-open connection where it is bounded; what it returns is
// the bound that it would break.
func (t *Table) enterShares(k *key) Cause {
	if t.halfOpen.Add(1) > int64(t.o.Backlog) {
		t.halfOpen.Add(-1)
		return BacklogFull
	}
	src := t.seed.address(k.source())
	if !t.sources.enter(src, t.o.PerSource) {
		t.halfOpen.Add(-1)
		return SourceShare
	}
	if !t.destinations.enter(t.seed.address(k.bHi, k.bLo), t.o.PerDestination) {
		t.sources.leave(src)
		t.halfOpen.Add(-1)
		return DestinationShare
	}
	return None
}

func (t *Table) leaveShares(k *key) {
	t.halfOpen.Add(-1)
	t.sources.leave(t.seed.address(k.source()))
	t.destinations.leave(t.seed.address(k.bHi, k.bLo))
}

// leaveShares takes the record's place in them back.
func (p *place) leaveShares() {
	k := p.flow()
	p.t.leaveShares(&k)
	p.flags &^= shares
}

// isn is RFC 6528's: a clock of 64 ns and a hash of the flow.
func (t *Table) isn(k *key, now time.Duration) uint32 {
	return uint32((t.isnKey.sip(k, 0, 0) + uint64(now)>>6) & 0xffffffff)
}

// tsClock is what our timestamps count from for a pair of addresses, so that they go
// on over all its connections and tell nothing of the gateway's age.
func (t *Table) tsClock(k *key) uint32 {
	pair := *k
	pair.ports = 0
	return uint32(t.tsKey.sip(&pair, 0, 0) & 0xffffffff)
}

// begin fills a record from a handshake.
func (p *place) begin(g *segment, o *SYNOptions, irs, isn uint32) {
	l := p.t.announced()
	p.flags &^= withTS | withSACK | withWS
	p.ourWS, p.cliWS = 0, 0
	if o.TS {
		p.flags |= withTS
	}
	if o.SACK {
		p.flags |= withSACK
	}
	if o.WindowScale >= 0 {
		p.flags |= withWS
		p.cliWS, p.ourWS = uint8(o.WindowScale), l.WindowScale
	}
	p.mss, p.queue, p.tsRecent = o.MSS, g.queue, o.TSVal
	p.cliNxt, p.rcvAck, p.sndNxt, p.sndUna = irs+1, irs+1, isn+1, isn+1
	// No header of a SYN or SYN-ACK has a scaled window (RFC 7323, section 2.2).
	p.cliWnd, p.ourWnd = g.wnd, l.Window
	p.maxWnd, p.rcvMax = uint32(g.wnd), p.rcvAck+uint32(l.Window)
}

// greet sends the first SYN-ACK.
func (p *place) greet(now time.Duration, out *outcome) {
	p.setState(SynReceived)
	p.tries = 0
	p.t.count(SYNAckSent)
	p.synAck(now, out)
	p.armSynAck(now)
}

// again repeats the SYN-ACK, for the timer.
func (p *place) again(now time.Duration, out *outcome) {
	p.tries++
	p.t.count(SYNAckAgain)
	p.synAck(now, out)
	p.armSynAck(now)
}

func (p *place) armSynAck(now time.Duration) {
	if p.tries < p.t.waits.retries {
		p.arm(backoff0+timer(p.tries), now)
		return
	}
	p.arm(handshake, now)
}

// options is what the record's side of the handshake says; the timestamps are left
// to the caller.
func (p *place) options() SYNOptions {
	l := p.t.announced()
	o := SYNOptions{MSS: l.MSS4, WindowScale: -1, SACK: p.has(withSACK), TS: p.has(withTS), TSEcr: p.tsRecent}
	if p.key[0] != v4Mark {
		o.MSS = l.MSS6
	}
	if p.has(withWS) {
		o.WindowScale = int8(p.ourWS & 15)
	}
	return o
}

func (p *place) synAck(now time.Duration, out *outcome) {
	out.reply = reply{
		key: p.flow(), flags: syn | ack, isSYN: true, queue: p.queue, wnd: p.ourWnd,
		seq: p.sndNxt - 1, ack: p.rcvAck, syn: p.options(),
	}
	if p.has(withTS) {
		p.tsLast = millis(now) + p.t.tsClock(&out.reply.key)
		out.reply.syn.TSVal = p.tsLast
	}
}

// dialing serves a client whose SYN is not answered yet.
func (p *place) dialing(g *segment) Result {
	t := p.t
	// The client cannot know our sequence number, and has no reason to send a RST:
	// what is no SYN was forged, or an earlier flow left it behind.
	switch {
	case g.flags&rst != 0:
		return t.dropped(StrayRST)
	case g.flags&(syn|ack) == syn|ack:
		return t.dropped(UnknownSYNAck)
	case g.flags&syn == 0:
		return t.dropped(HandshakeBadACK)
	}
	t.count(SYNDuplicate)
	if g.seq != p.cliNxt-1 { // the client began anew, and knows nothing of us yet
		o := t.readSYN(g)
		p.begin(g, &o, g.seq, p.sndNxt-1)
	}
	return Result{Cause: SYNDuplicate, Handle: p.handle(), Owner: p.owner}
}

// synReceived serves a client that has our SYN-ACK, or ought to (RFC 9293, section
// 3.10.7.4, in the order of Linux's tcp_check_req).
func (p *place) synReceived(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	switch {
	case g.flags&rst != 0 && g.seq == p.rcvAck: // RFC 5961, section 3.2
		p.end(HalfOpenReset, out)
		return Result{Cause: HalfOpenReset}
	case g.flags&rst != 0:
		return t.dropped(StrayRST)
	case g.flags&(syn|ack) == syn && g.seq == p.rcvAck-1:
		return p.duplicateSYN(g, now, out)
	case g.flags&syn != 0:
		return p.challenge(SYNChallenged, now, out)
	case g.ack != p.sndNxt:
		t.count(HandshakeBadACK)
		return p.rejected(g, now, out)
	case before(g.seq, p.rcvAck) || !before(g.seq, p.rcvMax), p.old(g):
		return p.challenge(HandshakePAWS, now, out)
	}
	if t.o.DeferAccept > 0 && !p.has(undefer) && g.bare() {
		p.deferAccept(g, now)
		return t.dropped(Deferred)
	}
	return p.create(g, now)
}

func (p *place) duplicateSYN(g *segment, now time.Duration, out *outcome) Result {
	p.t.count(SYNDuplicate)
	ms := millis(now)
	if ms-p.answered < p.t.waits.invalid {
		return p.t.dropped(SYNLimited)
	}
	p.answered = ms
	if o := ReadSYN(g.tcp); o.TS && !before(o.TSVal, p.tsRecent) {
		p.tsRecent = o.TSVal
	}
	p.queue = g.queue
	p.t.count(SYNAckAgain)
	p.synAck(now, out)
	return Result{Cause: SYNDuplicate}
}

// deferAccept keeps a client waiting that has nothing to say. When the time is up
// it gets another SYN-ACK, and its answer to that is enough.
func (p *place) deferAccept(g *segment, now time.Duration) {
	p.queue, p.cliWnd = g.queue, g.wnd
	if !p.has(deferred) {
		p.flags |= deferred
		p.arm(deferring, now)
	}
}

// challenge answers a segment that may be forged with an ACK, which tells an honest
// client where we are (RFC 5961).
func (p *place) challenge(why Cause, now time.Duration, out *outcome) Result {
	if p.limited(now) {
		p.t.count(ChallengeLimited)
	} else {
		out.reply = p.ackNow()
	}
	return p.t.dropped(why)
}

// Answer sends the SYN-ACK that a Dialing flow waits for: the upstream stands. False:
// the flow has gone.
func (t *Table) Answer(h Handle, now time.Duration) bool {
	var out outcome
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	if ok = p.state == Dialing; ok {
		t.count(Answered)
		p.greet(now, &out)
	}
	p.unlock()
	t.finish(&out)
	return ok
}

// Refuse ends a half-open flow with a RST: the upstream refused. It reports whether
// the flow was still there.
func (t *Table) Refuse(h Handle) bool { return t.give(h, Refused, true) }

// Drop ends a half-open flow without an answer; the client's next SYN is a new one.
func (t *Table) Drop(h Handle) bool { return t.give(h, DialDropped, false) }

func (t *Table) give(h Handle, why Cause, answer bool) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	var out outcome
	if ok = p.state.halfOpen(); ok {
		if answer {
			out.reply = p.reset()
			if p.state == Dialing { // it knows no sequence number of ours
				out.reply.seq = 0
			}
		}
		t.count(why)
		p.remove()
	}
	p.unlock()
	t.finish(&out)
	return ok
}
