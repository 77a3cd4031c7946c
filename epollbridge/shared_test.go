package epollbridge_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tungate/tungate/epollbridge"
)

// watcher is a Poller that watches a Shared, with somebody asleep in it.
type watcher struct {
	poller *epollbridge.Poller
	reg    epollbridge.Registration
	woken  <-chan result
}

func watchers(t *testing.T, s *epollbridge.Shared, modes ...epollbridge.Events) []*watcher {
	var l []*watcher
	for i, mode := range modes {
		w := &watcher{poller: newPoller(t)}
		if err := w.poller.Add(&w.reg, s, in|mode, uint64(i)); err != nil {
			t.Fatal(err)
		}
		w.woken = waitIn(w.poller, time.Minute)
		synctest.Wait()
		l = append(l, w)
	}
	return l
}

func woken(l []*watcher) (which []int) {
	synctest.Wait()
	for i, w := range l {
		if len(w.woken) > 0 {
			which = append(which, i)
		}
	}
	return which
}

// TestSharedWakesOne: of several Pollers that wait exclusively the first that has
// somebody asleep, and those that do not wait exclusively in any case.
func TestSharedWakesOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := new(object)
		s := epollbridge.Share(o)
		l := watchers(t, s, excl, excl|edge, 0, excl)
		o.become(in)
		if got := woken(l); len(got) != 2 || got[0] != 0 || got[1] != 2 {
			t.Fatalf("woke %v, want 0 and 2", got)
		}
		o.tell(in)
		if got := woken(l); len(got) != 3 || got[1] != 1 {
			t.Fatalf("woke %v, want 1 as well", got)
		}
		if err := l[3].poller.Delete(&l[3].reg); err != nil {
			t.Fatal(err)
		}
		o.tell(in)
		if got := woken(l); len(got) != 3 {
			t.Fatalf("woke %v, though 3 was deleted", got)
		}
		// Nobody sleeps: everybody who looks finds it.
		for i, w := range l[:3] {
			expect(t, w.poller, event(in, uint64(i)))
			if err := w.poller.Delete(&w.reg); err != nil {
				t.Fatal(err)
			}
		}
		if !o.queue.IsEmpty() {
			t.Error("a Shared that nobody watches is still registered")
		}
	})
}

// TestSharedCountsFd: a Poller whose descriptor becomes readable was woken; one
// whose descriptor is readable already has enough to do.
func TestSharedCountsFd(t *testing.T) {
	o := new(object)
	s := epollbridge.Share(o)
	var pollers [3]*epollbridge.Poller
	var regs [3]epollbridge.Registration
	for i := range pollers {
		pollers[i] = newPoller(t)
		fdOf(t, pollers[i])
		if err := pollers[i].Add(&regs[i], s, in|excl|edge, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pollers {
		o.become(in)
		for j, p := range pollers {
			level(t, fdOf(t, p), j <= i, "poller")
		}
	}
	expect(t, pollers[1], event(in, 1))
	o.tell(in)
	level(t, fdOf(t, pollers[1]), true, "the one that had returned its event")
}

// TestSharedListener: two Pollers accept from one listening endpoint; a connection
// wakes one of them.
func TestSharedListener(t *testing.T) {
	l := newLab(t)
	listener, addr := l.listen()
	defer listener.ep.Close()
	s := epollbridge.Share(&listener.source)
	var pollers [2]*epollbridge.Poller
	var regs [2]epollbridge.Registration
	var waits [2]<-chan result
	for i := range pollers {
		pollers[i] = newPoller(t)
		if err := pollers[i].Add(&regs[i], s, in|excl, uint64(i)); err != nil {
			t.Fatal(err)
		}
		waits[i] = waitIn(pollers[i], -1)
		eventually(t, "asleep", func() bool { return pollers[i].Stats().Sleeping == 1 })
	}
	defer l.dial(addr).ep.Abort()
	if r := await(t, "a connection", waits[0]); r.err != nil || r.events[0] != event(in, 0) {
		t.Errorf("got %v, want IN", r)
	}
	l.settle()
	if s := pollers[1].Stats(); s.Sleeping != 1 || s.Wakeups != 0 {
		t.Errorf("the other Poller: %+v, want it asleep", s)
	}
	defer listener.accept().ep.Abort()
}
