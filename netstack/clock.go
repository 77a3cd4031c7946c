package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// clock is the machine's. Its timers are those of package time while they run; while
// they do not, as nearly all of an idle connection's, they have none: 32 bytes in place
// of 128, two or three times a connection.
type clock struct {
	tcpip.Clock
	idle sync.Pool // of *alarm, none of which runs
}

func newClock() tcpip.Clock { return &clock{Clock: tcpip.NewStdClock()} }

// AfterFunc implements tcpip.Clock.
func (c *clock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &timer{c: c, f: f}
	t.Reset(d)
	return t
}

// timer implements tcpip.Timer, for any number of callers at once. It differs from
// time.Timer in that a call that comes before f began is never too late: Stop then
// reports true, and Reset moves it, though the runtime may have started its goroutine.
type timer struct {
	c   *clock
	f   func()
	mu  sync.Mutex
	run *alarm // nil while it does not run
}

// alarm is a timer of the runtime, lent to one of ours.
type alarm struct {
	t  *time.Timer
	of *timer // written before t starts, read by what it starts
}

// Reset lets f be called d from now, in a goroutine of its own.
func (t *timer) Reset(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.run; a != nil && a.t.Stop() {
		a.t.Reset(d)
		return
	}
	a, ok := t.c.idle.Get().(*alarm)
	if !ok {
		a = &alarm{of: t}
		t.run = a
		a.t = time.AfterFunc(d, a.ring)
		return
	}
	a.of = t
	t.run = a
	a.t.Reset(d)
}

// Stop reports whether it kept f from being called.
func (t *timer) Stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.run
	t.run = nil
	if a != nil && a.t.Stop() {
		t.c.lend(a)
	}
	return a != nil
}

// ring is what the runtime calls. An alarm that its timer has let go meanwhile rings
// for nobody.
func (a *alarm) ring() {
	t := a.of
	t.mu.Lock()
	due := t.run == a
	if due {
		t.run = nil
	}
	t.mu.Unlock()
	t.c.lend(a)
	if due {
		t.f()
	}
}

// lend has others use an alarm that neither runs nor rings.
func (c *clock) lend(a *alarm) {
	a.of = nil
	c.idle.Put(a)
}
