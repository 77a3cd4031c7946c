package minisock

import (
	"sync"
	"time"
)

// Clients that are silent are probed (RFC 1122, section 4.2.3.6), as Linux does it:
// after tcp_keepalive_time, each tcp_keepalive_intvl, tcp_keepalive_probes times.
// There is no timer for that: Probe walks through the table, slowly, and looks.

const (
	// lookEvery is in how many parts an interval is looked at: a probe comes that
	// much of it late at most, if probes are not held back.
	lookEvery = 8
	// lookMost bounds records looked at a second. Among a million one takes some
	// 40 ns, so this is 4 ms (BenchmarkProbe).
	lookMost = 100_000
	// lookBatch is how many a call is to look at, which is then the most that it
	// can probe at once. The queue of a device that others made holds 500 answers.
	lookBatch = 256
	// lookPause is the least time between calls.
	lookPause = 10 * time.Millisecond

	// probesLeast and probesMost bound probes a second. Between them there are as
	// many as it takes to ask all within an interval, and a quarter more; so a
	// million clients that went silent together are asked one after the other.
	probesLeast, probesMost = 100, 40_000
)

// eternity is an age, in epochs, that no record has.
const eternity = 1 << 30

// keeper is what Probe knows between calls.
type keeper struct {
	mu             sync.Mutex // of the one call; never waited for
	on             bool
	idle, interval uint32        // epochs: more than that must have passed
	unacked        uint32        // the same, where something of ours is not acknowledged
	every          time.Duration // the shortest of these

	at     cursor
	last   time.Duration // the last call; valid iff begun
	next   time.Duration // and when there was to be another
	begun  bool
	credit time.Duration // for probes, by the time that one has
	// awake is the epoch since which Probe was called in time. Answers to what was
	// sent before may have come and gone while the whole process stood.
	awake uint32
}

func (k *keeper) init(o *Options) {
	up := func(d time.Duration) uint32 { return epochs(d + epoch - 1) }
	k.on = o.KeepaliveIdle > 0 || o.Unacknowledged > 0
	k.idle, k.interval, k.unacked = eternity, up(o.KeepaliveInterval), eternity
	k.every = o.KeepaliveInterval
	if o.KeepaliveIdle > 0 {
		k.idle = up(o.KeepaliveIdle)
		k.every = min(k.every, o.KeepaliveIdle)
	}
	if o.Unacknowledged > 0 {
		k.unacked = up(o.Unacknowledged)
		k.every = min(k.every, o.Unacknowledged)
	}
	k.every = max(k.every, time.Second)
}

// Probe asks clients that are silent whether they are there, as far as that is due,
// and ends connections whose clients gave no answer ([Sink].Ended). It returns when
// it is to be called again: what it does each time is little. One whose answer may
// have been missed, since Probe was called late, is asked again.
func (t *Table) Probe(now time.Duration) (next time.Duration) {
	k := &t.keeper
	if !k.on {
		return Never
	}
	if !k.mu.TryLock() {
		return now + lookPause
	}
	defer k.mu.Unlock()
	records := t.served()
	if !k.begun || now > k.next+epoch {
		k.awake, k.last, k.begun = epochs(now), now, true
	}
	turn := max(k.every/lookEvery, time.Duration(records)*time.Second/lookMost)
	pause := min(max(turn*lookBatch/time.Duration(max(1, records)), lookPause), turn/4)
	passed := min(now-k.last, 2*pause)
	k.last, k.next = now, now+pause
	if records == 0 {
		k.next = now + turn
		return k.next
	}
	rate := min(max(int64(records)*int64(time.Second)/int64(k.every)*5/4, probesLeast), probesMost)
	t.look(passed, turn, time.Second/time.Duration(rate), now)
	return k.next
}

// served is about how many connections have endpoints.
func (t *Table) served() int {
	n := -t.orphans.Load()
	for s := Established; s <= LastAck; s++ {
		n += t.states[s].Load()
	}
	return int(max(0, n))
}

// look goes on as far as passed is of turn, or as far as there is time for probes,
// which have so much of it each.
func (t *Table) look(passed, turn, each, now time.Duration) {
	k := &t.keeper
	k.credit = min(k.credit, each) + passed
	way := int64(float64(len(t.shards)) * float64(round) * float64(passed) / float64(turn))
	present := epochs(now)
	due := func(r *record) bool { return k.due(r, present) }
	for way > 0 && k.credit > 0 {
		span, probed := t.visit(&k.at, due, errand{present: present})
		way -= span
		k.credit -= time.Duration(probed) * each
	}
}

// due reports whether a client is to be probed, or given up, in an epoch. Where
// something of ours is not acknowledged, it is the stack's retransmissions that find
// out, or what Stalled makes it send.
func (k *keeper) due(r *record, present uint32) bool {
	switch {
	case r.flags&served == 0:
		return false
	case r.sndUna != r.sndNxt:
		return k.stuck(r, present)
	case !before(r.seen+k.idle, present):
		return false
	}
	return !r.asked() || before(r.probed()+k.interval, present)
}

// nudgeAfter is for how many epochs a client may acknowledge nothing before its stack is
// taken for stalled: longer than timers wait that have not been in vain often.
const nudgeAfter = 10

// stuck reports whether the client has acknowledged nothing for long, though its window
// is open, and sent nothing new: long enough to end the connection, or to nudge its stack
// once more.
func (k *keeper) stuck(r *record, present uint32) bool {
	// The complement, since hush may have left the sum itself in the silence before.
	if at := ^r.stand(); r.prev != at || r.cliWnd == 0 {
		r.prev, r.next, r.deadline = at, present, present
		return false
	}
	nudge := before(r.next+nudgeAfter, present) && before(r.deadline+nudgeAfter, present) && k.unacked < eternity
	return nudge || k.lost(r, present)
}

// lost reports whether that has lasted for too long.
func (k *keeper) lost(r *record, present uint32) bool { return before(r.next+k.unacked, present) }

// asked reports whether the client has been probed, and not been heard since. It was
// silent for two epochs at least then; one of them is for packets that are dated when
// their batch was read.
func (r *record) asked() bool { return r.tries > 0 && before(r.seen+1, r.probed()) }

// probe sends the next probe, or ends the connection after the last.
func (p *place) probe(present uint32, out *outcome) {
	t := p.t
	if p.sndUna != p.sndNxt {
		if t.keeper.lost(p.record, present) {
			p.cut(Unacked, out)
			return
		}
		p.deadline = present
		out.stalled, out.end = p.handle(), p.sndNxt
		return
	}
	switch {
	case !p.asked():
		p.tries = 0
		p.hush()
	case before(p.probed(), t.keeper.awake):
		p.tries--
	}
	if int(p.tries) >= t.o.KeepaliveCount {
		p.cut(ClientSilent, out)
		return
	}
	p.tries++
	p.setProbed(present)
	t.count(ProbeSent)
	out.reply = p.answer(ack, p.sndUna-1)
}

// cut ends a connection from here, whose client and owner hear of it.
func (p *place) cut(why Cause, out *outcome) {
	p.t.count(why)
	out.reply, out.ended = p.reset(), why
	p.remove()
}

// A connection with an endpoint has no timer, so the words of one serve here:
//
//	deadline  the epoch of the last probe, valid iff tries > 0; or of the last nudge,
//	          less a bit, where something of ours is not acknowledged
//	next      the epoch in which the client fell silent, but for answers to probes,
//	          or since which it has acknowledged nothing
//	prev      where both sides' bytes stood then, in the second case the complement;
//	          that they have moved ends either

func (r *record) probed() uint32         { return r.deadline }
func (r *record) setProbed(epoch uint32) { r.deadline = epoch }

// stand is where the bytes of both sides are that the client has sent and acknowledged.
func (r *record) stand() uint32 { return r.cliNxt + r.sndUna }

// hush notes that a client is silent, before its answers make it look busy.
func (r *record) hush() {
	if at := r.stand(); r.prev != at {
		r.prev, r.next = at, r.seen
	}
}

// quiet is the epoch since which the client has sent and acknowledged nothing.
func (r *record) quiet() uint32 {
	if r.prev == r.stand() {
		return r.next
	}
	return r.seen
}
