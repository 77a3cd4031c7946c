package epollbridge_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tungate/tungate/epollbridge"
)

// TestTimeout: Wait returns nothing, and not before its time.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoller(t)
		events := make([]epollbridge.Event, 1)
		for _, timeout := range []time.Duration{0, 1, time.Second, time.Hour} {
			start := time.Now()
			n, err := p.Wait(events, timeout)
			if d := time.Since(start); n != 0 || err != nil || d != timeout {
				t.Errorf("Wait(%v): %d, %v after %v", timeout, n, err, d)
			}
		}
	})
}

// TestStaleDoesNotEndWait: a notification with nothing behind it neither ends a
// Wait nor prolongs it.
func TestStaleDoesNotEndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o := newPoller(t), new(object)
		add(t, p, o, in, 1)
		start := time.Now()
		waiting := waitIn(p, time.Minute)
		for range 3 {
			<-time.After(time.Second)
			o.tell(in)
		}
		synctest.Wait()
		if s := p.Stats(); s.Stale != 3 || s.Wakeups != 3 {
			t.Errorf("%+v, want 3 looks", s)
		}
		if r := <-waiting; r.err != nil || len(r.events) != 0 {
			t.Errorf("got %v", r)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("Wait took %v, want a minute", d)
		}
	})
}

// TestWake ends one Wait: one that sleeps, or the next.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoller(t)
		a, b := waitIn(p, -1), waitIn(p, -1)
		synctest.Wait()
		p.Wake()
		synctest.Wait()
		if n := len(a) + len(b); n != 1 {
			t.Fatalf("Wake ended %d Waits, want 1", n)
		}
		p.Wake()
		for _, c := range []<-chan result{a, b} {
			if r := <-c; r.err != nil || len(r.events) != 0 {
				t.Errorf("got %v", r)
			}
		}
		// Wakes add up to one while nobody waits.
		p.Wake()
		p.Wake()
		start := time.Now()
		for _, want := range []time.Duration{0, time.Second} {
			if r := <-waitIn(p, time.Second); r.err != nil || len(r.events) != 0 {
				t.Errorf("got %v", r)
			}
			if d := time.Since(start); d != want {
				t.Errorf("after %v, want %v", d, want)
			}
		}
		// A Wait that returns events has been woken as well.
		o := new(object)
		o.set(in)
		p.Wake()
		add(t, p, o, in|edge, 1)
		expect(t, p, event(in, 1))
		if r := <-waitIn(p, time.Second); len(r.events) != 0 || time.Since(start) != 2*time.Second {
			t.Errorf("got %v after %v", r, time.Since(start))
		}
	})
}

// TestCloseEndsWaits: all of them, with and without a timeout, and Close returns
// after them.
func TestCloseEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := epollbridge.New()
		waits := []<-chan result{waitIn(p, -1), waitIn(p, time.Hour), waitIn(p, -1)}
		synctest.Wait()
		closed := make(chan error, 2)
		go func() { closed <- p.Close() }()
		go func() { closed <- p.Close() }()
		for _, c := range waits {
			if r := <-c; !errors.Is(r.err, net.ErrClosed) {
				t.Errorf("got %v, want net.ErrClosed", r)
			}
		}
		for range cap(closed) {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestOneNotificationWakesOne of the waiters, the level-triggered event then the
// others too, one after the other, because it is still true. An edge or an
// exclusive event wakes no other.
func TestOneNotificationWakesOne(t *testing.T) {
	for mode, want := range map[epollbridge.Events]int{0: 4, edge: 1, once: 1, excl: 1} {
		for _, room := range []int{1, 8} {
			t.Run(fmt.Sprint(mode, " ", room), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, o := newPoller(t), new(object)
					add(t, p, o, in|mode, 1)
					done := crowdOfWaits(p, 4, room)
					o.become(in)
					synctest.Wait()
					if len(done) != want {
						t.Errorf("%d of %d waiters returned, want %d", len(done), cap(done), want)
					}
					if n := p.Stats().Wakeups; n != uint64(want) {
						t.Errorf("%d wakeups, want %d", n, want)
					}
				})
			})
		}
	}
}

// crowdOfWaits returns when n goroutines sleep in Wait, with room for so many
// events each; those that return something send the first.
func crowdOfWaits(p *epollbridge.Poller, n, room int) <-chan epollbridge.Event {
	done := make(chan epollbridge.Event, n)
	for range n {
		go func() {
			events := make([]epollbridge.Event, room)
			if n, err := p.Wait(events, time.Minute); n > 0 && err == nil {
				done <- events[0]
			}
		}()
	}
	synctest.Wait()
	return done
}

// TestExclusiveWakesAnotherEachTime: every notification of an exclusive
// registration wakes somebody, also while the first still has the event, and who
// calls Wait anew finds what is ready.
func TestExclusiveWakesAnotherEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o := newPoller(t), new(object)
		add(t, p, o, in|excl, 1)
		done := crowdOfWaits(p, 3, 8)
		for want := 1; want <= 2; want++ {
			o.become(in)
			synctest.Wait()
			if len(done) != want {
				t.Fatalf("%d waiters returned after %d notifications", len(done), want)
			}
		}
		expect(t, p, event(in, 1))
		o.tell(in) // while it is in the ready list, after all of this
		o.set(0)
		// Somebody else's event, and no room for both: the other waiter must get it.
		x := new(object)
		add(t, p, x, in|edge, 2)
		x.become(in)
		synctest.Wait()
		if len(done) != 3 {
			t.Fatal("an event of another registration was lost behind the exclusive one")
		}
	})
}

// TestLeftOver: a Wait that had no room for everything wakes another. That there is
// one asleep beside something to report is the exclusive registration's doing.
func TestLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, first, second := newPoller(t), new(object), new(object)
		add(t, p, first, in|excl, 1)
		add(t, p, second, in|edge, 2)
		done := crowdOfWaits(p, 4, 1)
		first.become(in)
		synctest.Wait()
		if len(done) != 1 {
			t.Fatalf("%d Waits returned after the first notification", len(done))
		}
		second.become(in) // behind first, which is still ready
		synctest.Wait()
		if len(done) != 3 {
			t.Fatalf("%d Waits returned after the second notification", len(done))
		}
		<-done
		if a, b := <-done, <-done; a != event(in, 1) || b != event(in, 2) {
			t.Errorf("got %v and %v", a, b)
		}
	})
}

// TestNotifiedInHand: what is notified while a Wait asks the object is not lost,
// though the answer may be older.
func TestNotifiedInHand(t *testing.T) {
	for _, mode := range []epollbridge.Events{0, edge, excl} {
		t.Run(mode.String(), func(t *testing.T) {
			p, o := newPoller(t), new(object)
			add(t, p, o, in|mode, 1)
			o.tell(in)
			first := true
			o.hook = func() {
				if first {
					first = false
					o.tell(in)
				}
			}
			expect(t, p) // the answer was: nothing
			o.set(in)
			expect(t, p, event(in, 1))
		})
	}
}

// TestModifiedInHand: a Modify while a Wait asks the object counts.
func TestModifiedInHand(t *testing.T) {
	p, o := newPoller(t), new(object)
	o.set(out)
	add(t, p, o, in|out|once, 1)
	first := true
	o.hook = func() {
		if first {
			first = false
			if err := p.Modify(&o.Registration, in|once, 2); err != nil {
				t.Error(err)
			}
		}
	}
	expect(t, p)
	o.become(in)
	expect(t, p, event(in, 2))
	expect(t, p)
}
