package minisock

import "time"

// timer is the list that a record waits in. All records in one wait equally long,
// so each list is sorted by itself: arming appends, and what is due is at the head.
// That is a timer wheel with a slot for each kind of wait, and no tick.
type timer uint8

const (
	idle      timer = iota
	backoff0        // 1 s, and 2, 4 ... 64 s after it: SYN-ACKs and orphans' FINs
	backoffN  = backoff0 + maxRetries
	handshake = iota + maxRetries - 1 // what the last SYN-ACK has left
	dialing
	deferring
	creating
	waiting // TIME_WAIT
	lingering
	finishing // FIN_WAIT_2
	numTimers
)

// Never is what Next returns if nothing is to be done.
const Never = time.Duration(1<<63 - 1)

// tickBatch is how many records Tick serves under one lock, tickMost how many in all:
// a loop that serves packets too is held up for a millisecond at most.
const (
	tickBatch = 16
	tickMost  = 4096
)

// list is a queue of records; its ends are numbers + 1.
type list struct{ first, last uint32 }

// waits is how long the records of each list wait, in milliseconds.
type waits struct {
	of      [numTimers]uint32
	retries uint8 // SYN-ACKs that fit into the handshake's time
	invalid uint32
}

func newWaits(o *Options) waits {
	var w waits
	for i := range timer(maxRetries + 1) {
		w.of[backoff0+i] = 1000 << i
	}
	ms := func(d time.Duration) uint32 { return millis(max(d, 0)) }
	left := ms(o.HandshakeTimeout)
	for int(w.retries) < o.SynAckRetries && left > 1000<<w.retries {
		left -= 1000 << w.retries
		w.retries++
	}
	w.of[handshake] = left
	w.of[dialing], w.of[deferring], w.of[creating] = ms(o.DialTimeout), ms(o.DeferAccept), ms(o.CreateTimeout)
	w.of[waiting], w.of[lingering], w.of[finishing] = ms(o.TimeWait), ms(o.Linger), ms(o.FinTimeout)
	w.invalid = ms(o.InvalidInterval)
	return w
}

// arm puts the record last in a list, out of the one that it is in.
func (p *place) arm(kind timer, now time.Duration) {
	p.disarm()
	p.timer, p.deadline = kind, millis(now)+p.t.waits.of[kind]
	l := &p.sh.lists[kind]
	p.prev, p.next = l.last, 0
	if l.last == 0 {
		l.first = p.i + 1
	} else {
		p.sh.at(l.last - 1).next = p.i + 1
	}
	l.last = p.i + 1
}

func (p *place) disarm() {
	if p.timer == idle {
		return
	}
	l := &p.sh.lists[p.timer]
	if p.prev == 0 {
		l.first = p.next
	} else {
		p.sh.at(p.prev - 1).next = p.next
	}
	if p.next == 0 {
		l.last = p.prev
	} else {
		p.sh.at(p.next - 1).prev = p.prev
	}
	p.timer, p.prev, p.next = idle, 0, 0
}

// Tick does what is due at now, and some of it only if that is much: Next tells.
func (t *Table) Tick(now time.Duration) {
	left := tickMost
	// Each call begins behind where the last one ended, so that no shard waits for
	// another's flood.
	n := uint32(len(t.shards)) //nolint:gosec // at most 1024
	start := t.swept.Load()
	for i := range n {
		if left <= 0 {
			return
		}
		t.swept.Store((start + i + 1) % n)
		sh := &t.shards[(start+i)%n]
		for left > 0 {
			done := t.sweep(sh, now)
			left -= done
			if done < tickBatch {
				break
			}
		}
	}
}

// sweep serves up to tickBatch records of a shard and returns how many.
func (t *Table) sweep(sh *shard, now time.Duration) int {
	var out [tickBatch]outcome
	n := 0
	ms := millis(now)
	sh.mu.Lock()
	for kind := backoff0; kind < numTimers && n < tickBatch; kind++ {
		for n < tickBatch {
			first := sh.lists[kind].first
			if first == 0 || before(ms, sh.at(first-1).deadline) {
				break
			}
			p := place{record: sh.at(first - 1), t: t, sh: sh, i: first - 1}
			k := p.flow()
			p.hash = t.seed.flow(&k)
			t.fire(&p, kind, now, &out[n])
			n++
		}
	}
	sh.mu.Unlock()
	for i := range n {
		t.finish(&out[i])
	}
	return n
}

// fire does what the end of a record's wait means.
func (t *Table) fire(p *place, kind timer, now time.Duration, out *outcome) {
	switch {
	case p.state == SynReceived && kind == deferring:
		p.flags |= undefer
		p.tries = 0
		p.again(now, out)
	case p.state == SynReceived && kind != handshake:
		p.again(now, out)
	case p.state == SynReceived:
		p.end(HalfOpenExpired, out)
	case p.state == Dialing:
		p.end(DialExpired, out)
	case p.state == Creating:
		out.reply = p.reset()
		p.end(CreateExpired, out)
	case p.has(orphan) && kind != finishing && int(p.tries) < t.o.OrphanRetries:
		t.count(FinAgain)
		out.reply = p.fin()
		p.tries++
		p.arm(backoff0+timer(p.tries), now)
	case p.has(orphan):
		t.count(OrphanExpired)
		p.remove()
	case p.state.over():
		t.count(Expired)
		p.remove()
	default: // a timer that its state did not stop
		p.disarm()
	}
}

// end removes a record and tells its owner, if it has to do with one.
func (p *place) end(why Cause, out *outcome) {
	p.t.count(why)
	if p.state == Dialing || p.state == Creating || p.owner != 0 {
		out.gone, out.why, out.owner = p.handle(), why, p.owner
	}
	p.remove()
}

// Next returns when Tick is due; it may be past, and is Never if there is nothing
// to do. Every other call may make it earlier than before.
func (t *Table) Next(now time.Duration) time.Duration {
	next := Never
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for kind := backoff0; kind < numTimers; kind++ {
			if first := sh.lists[kind].first; first != 0 {
				left := int32(sh.at(first-1).deadline - millis(now)) //nolint:gosec // serial arithmetic, as before
				next = min(next, now.Truncate(time.Millisecond)+time.Duration(left)*time.Millisecond)
			}
		}
		sh.mu.Unlock()
	}
	return max(0, next)
}
