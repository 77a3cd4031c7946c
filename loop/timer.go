package loop

import (
	"math/bits"
	"time"
)

const (
	// tick is the wheel's resolution: timeouts here are seconds to hours.
	tick = 50 * time.Millisecond
	// slots make a turn of the wheel 51.2 s. A timer for longer stays in its
	// slot and is looked at once a turn, at the price of one comparison.
	slots = 1024
)

// Expirer is what a Timer calls.
type Expirer interface {
	// Expire runs on the loop's goroutine.
	Expire()
}

// ExpirerFunc is a function as an Expirer.
type ExpirerFunc func()

// Expire calls f.
func (f ExpirerFunc) Expire() { f() }

// Timer calls its Expirer once, at its time or a tick later. Embed it in what it
// works on.
type Timer struct {
	expirer    Expirer
	prev, next *Timer
	at         int64 // tick number
}

// Init sets what the timer calls, before the first Set.
func (t *Timer) Init(e Expirer) { t.expirer = e }

// wheel is a hashed timing wheel (Varghese and Lauck, scheme 6).
type wheel struct {
	start time.Time
	now   int64 // every tick up to this one has been served
	armed int
	heads [slots]Timer       // list heads, each in a ring with its timers
	used  [slots / 64]uint64 // slots that may hold timers; the empty ones surely not
	due   Timer              // head of what a tick took from its slot
}

func (w *wheel) init(now time.Time) {
	w.start = now
	for i := range w.heads {
		w.heads[i].ring()
	}
	w.due.ring()
}

// ring makes t the head of an empty list.
func (t *Timer) ring() { t.prev, t.next = t, t }

// add puts u at the end of the list with head t.
func (t *Timer) add(u *Timer) {
	u.prev, u.next = t.prev, t
	u.prev.next, t.prev = u, u
}

func (w *wheel) tickOf(now time.Time) int64 { return int64(now.Sub(w.start) / tick) }

// Set lets t fire in d, in place of any time it was set to. It must be called on
// the loop's goroutine.
func (l *Loop) Set(t *Timer, d time.Duration) {
	w := &l.wheel
	w.stop(t)
	// One more, because the current tick has begun already.
	t.at = max(w.tickOf(time.Now().Add(d)), w.now) + 1
	w.push(t)
	w.armed++
}

func (w *wheel) push(t *Timer) {
	slot := t.at % slots
	w.heads[slot].add(t)
	w.used[slot/64] |= 1 << (slot % 64)
}

// Stop keeps t from firing. It must be called on the loop's goroutine.
func (l *Loop) Stop(t *Timer) { l.wheel.stop(t) }

func (w *wheel) stop(t *Timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
	w.armed--
}

// wait returns how long a sleep may last, in milliseconds; negative is without
// end. It looks for the next slot with a timer, due or not.
func (w *wheel) wait(now time.Time) int {
	if w.armed == 0 {
		return -1
	}
	at := w.start.Add(time.Duration(w.nextUsed()) * tick)
	return max(1, int((at.Sub(now)+time.Millisecond-1)/time.Millisecond))
}

// nextUsed returns the first tick after now whose slot may hold timers.
func (w *wheel) nextUsed() int64 {
	next := w.now + 1
	for end := next + slots; next < end; {
		slot := next % slots
		if word := w.used[slot/64] >> (slot % 64); word != 0 {
			return next + int64(bits.TrailingZeros64(word))
		}
		next += 64 - slot%64
	}
	return next
}

// runTimers fires what is due.
func (l *Loop) runTimers() {
	w, clock := &l.wheel, time.Now()
	l.runAlarms(clock)
	now := w.tickOf(clock)
	if w.armed == 0 {
		w.now = now
		return
	}
	// A loop that was held up for long looks at each slot once.
	for w.now = max(w.now, now-slots); w.now < now; {
		w.now++
		l.serveSlot(w.now%slots, now)
	}
}

// serveSlot fires the timers of one slot that are due at tick now. They are taken
// off the slot first, since what they call may set and stop any timer.
func (l *Loop) serveSlot(slot, now int64) {
	w := &l.wheel
	h := &w.heads[slot]
	w.used[slot/64] &^= 1 << (slot % 64)
	if h.next == h {
		return
	}
	w.due.next, w.due.prev = h.next, h.prev
	w.due.next.prev, w.due.prev.next = &w.due, &w.due
	h.ring()
	for t := w.due.next; t != &w.due; t = w.due.next {
		if t.at > now {
			t.prev.next, t.next.prev = t.next, t.prev
			w.push(t)
			continue
		}
		w.stop(t)
		l.stats.timers.Add(1)
		t.expirer.Expire()
	}
}
