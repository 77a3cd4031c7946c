package minisock

import (
	"net/netip"
	"time"
)

// Open is all that an active open towards the client needs to know, and what the
// client was promised.
type Open struct {
	Client      netip.AddrPort
	Destination netip.AddrPort
	// SYN is what the client's SYN said, its segment size made plausible. TSVal
	// is its latest timestamp.
	SYN SYNOptions
	// ClientNext and OurNext are the first sequence numbers after the handshake.
	ClientNext uint32
	OurNext    uint32
	Window     uint32 // the client's, in bytes
	Queue      uint16
	Owner      uint32 // 0 if nobody dialled for it yet
}

// create ends the handshake with the segment that finished it.
func (p *place) create(g *segment, now time.Duration) Result {
	p.t.prove(&g.key)
	rtt := p.handshakeRTT(now)
	p.setState(Creating)
	p.seen, p.queue, p.cliWnd = epochs(now), g.queue, g.wnd
	p.maxWnd = p.window()
	p.ourWnd >>= p.ourWS // no longer a SYN-ACK's
	if g.ts != 0 && p.has(withTS) {
		p.tsRecent = g.tsVal()
	}
	p.arm(creating, now)
	res := Result{Verdict: Create, Held: !g.bare(), RTT: rtt, Handle: p.handle(), Owner: p.owner}
	if res.Held {
		p.held = 1
	}
	return res
}

// handshakeRTT is the time since the SYN-ACK, if there was but one and it is known.
func (p *place) handshakeRTT(now time.Duration) uint8 {
	if p.state != SynReceived || p.timer != backoff0 || p.tries > 0 {
		return UnknownRTT
	}
	sent := p.deadline - p.t.waits.of[backoff0]
	return uint8(min(UnknownRTT, millis(now)-sent))
}

// Open returns what a record in Creating knows. False: it is gone, or in another
// state.
func (t *Table) Open(h Handle) (Open, bool) {
	p, ok := t.resolve(h)
	if !ok {
		return Open{}, false
	}
	defer p.unlock()
	if p.state != Creating {
		return Open{}, false
	}
	k := p.flow()
	return Open{
		Client: k.client(), Destination: k.destination(), SYN: p.clientSYN(),
		ClientNext: p.cliNxt, OurNext: p.sndNxt, Window: p.window(), Queue: p.queue, Owner: p.owner,
	}, true
}

// clientSYN is what the client said in its SYN.
func (p *place) clientSYN() SYNOptions {
	o := SYNOptions{MSS: p.mss, WindowScale: -1, SACK: p.has(withSACK), TS: p.has(withTS), TSVal: p.tsRecent}
	if p.has(withWS) {
		o.WindowScale = int8(p.cliWS & 15)
	}
	return o
}

// Establish makes the two sequence spaces one. The stack's SYN must have come by
// Outbound. What is returned is appended to b: the SYN-ACK that the client would
// have sent, for the caller to give to the stack. From now on the stack's segments
// pass, translated; the client's wait until Ready. The stack's ACK of the SYN-ACK is
// swallowed. False: the record is gone, or there was no SYN.
//
// An attempt of the caller's that failed may be made again before: the stack's next
// SYN takes the place of the one before.
func (t *Table) Establish(h Handle, now time.Duration, b []byte) ([]byte, bool) {
	p, ok := t.resolve(h)
	if !ok {
		return b, false
	}
	if p.state != Creating || !p.has(synSeen) || p.has(live) {
		p.unlock()
		return b, false
	}
	stackISN, stackTS := p.seqD, p.tsD
	k := p.flow()
	// The stack's first byte after its SYN is the first that the client expects.
	p.seqD = p.sndNxt - (stackISN + 1)
	ts := millis(now) + t.tsClock(&k)
	if before(ts, p.tsLast) { // a client's PAWS would drop what goes back in time
		ts = p.tsLast
	}
	p.tsD = ts - stackTS
	p.flags |= live | swallow
	r := reply{
		key: k, flags: syn | ack, isSYN: true, seq: p.cliNxt - 1, ack: stackISN + 1, syn: p.clientSYN(),
		wnd: uint16(min(p.window(), 1<<16-1)), // unscaled, as in any SYN
	}
	r.syn.TSEcr = stackTS
	p.unlock()
	return r.build(b, true), true
}

// creating serves a client whose endpoint is being made.
func (p *place) creating(g *segment, now time.Duration, out *outcome) Result {
	t := p.t
	switch {
	case g.flags&syn != 0:
		return t.dropped(ChallengedSYN) // a duplicate; the stack's ACK will do
	case g.flags&rst != 0 && !p.exact(g):
		return t.dropped(StrayRST)
	}
	if why := p.flaw(g, now); g.flags&rst == 0 && why != None {
		return p.challenge(why, now, out)
	}
	// No client sends more than it was promised room for, so that is all that a
	// flow's packets can make the caller keep.
	if int(p.held) >= t.o.MaxHeld || before(p.rcvMax+1, g.end()) {
		return t.dropped(HeldFull)
	}
	p.held++
	t.count(HeldPacket)
	return Result{Verdict: Hold, Handle: p.handle(), Owner: p.owner}
}

// Resume takes a packet that was kept, in the order in which they came, after
// Establish. Its result is as Inbound's would have been: Pass or Dropped.
func (t *Table) Resume(s *Segment, now time.Duration) Result {
	var g segment
	if !g.read(s, false) {
		return t.dropped(Malformed)
	}
	var out outcome
	var p place
	p.lookup(t, &g.key)
	res := Result{Cause: Late}
	if p.record != nil && p.state == Creating && p.held > 0 {
		p.held--
		if p.has(live) {
			res = p.connected(&g, now, &out)
		}
	}
	p.unlock()
	t.finish(&out)
	return res
}

// Ready opens the way for the client's packets, once the stack has the SYN-ACK and
// all that was kept. Not ok: there are kept packets to Resume first, or the record is
// gone. gone is as in Result: both sides have closed already.
func (t *Table) Ready(h Handle, now time.Duration) (ok, gone bool) {
	p, ok := t.resolve(h)
	if !ok {
		return false, false
	}
	defer p.unlock()
	if p.state != Creating || !p.has(live) || p.held > 0 {
		return false, false
	}
	p.disarm()
	p.tries = 0
	p.flags &^= lossy
	p.setState(Established)
	if p.flags&(finIn|finOut) != 0 {
		gone = p.progress(now)
	}
	return true, gone
}

// Fail ends a record whose endpoint cannot be made: its client gets a RST.
func (t *Table) Fail(h Handle) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	var out outcome
	if ok = p.state == Creating; ok {
		out.reply = p.reset()
		t.count(CreateFailed)
		p.remove()
	}
	p.unlock()
	t.finish(&out)
	return ok
}
