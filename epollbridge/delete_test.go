package epollbridge_test

import (
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// TestDeleteLeavesNothing: neither in the ready list nor in the object.
func TestDeleteLeavesNothing(t *testing.T) {
	p := newPoller(t)
	var a, b, c object
	for i, o := range []*object{&a, &b, &c} {
		o.set(in)
		add(t, p, o, in, uint64(i))
	}
	if err := p.Delete(&b.Registration); err != nil {
		t.Fatal(err)
	}
	if !b.queue.IsEmpty() {
		t.Error("still in the object's queue")
	}
	b.tell(in)
	expect(t, p, event(in, 0), event(in, 2))
	if n := p.Stats().Registered; n != 2 {
		t.Errorf("%d registrations, want 2", n)
	}
}

// TestDeleteWaitsForCallback: a callback that runs when Delete begins has ended
// when it returns.
func TestDeleteWaitsForCallback(t *testing.T) {
	p, o := newPoller(t), new(object)
	entered, leave := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	var slow waiter.Entry
	slow.Init(callback(func() { close(entered); <-leave; ended.Store(true) }), waiter.EventIn)
	o.set(in)
	add(t, p, o, in, 1)
	o.queue.EventRegister(&slow) // in the same pass as the registration's callback
	notified := make(chan struct{})
	go func() { o.tell(in); close(notified) }()
	await(t, "the callback", entered)
	deleted := make(chan error, 1)
	go func() {
		err := p.Delete(&o.Registration)
		if !ended.Load() {
			t.Error("Delete returned while the object's callbacks ran")
		}
		deleted <- err
	}()
	// Delete has begun when the Poller has nothing to look at any more.
	eventually(t, "Delete begins", func() bool { return len(look(t, p)) == 0 })
	close(leave)
	if err := await(t, "Delete", deleted); err != nil {
		t.Error(err)
	}
	await(t, "the notification", notified)
	expect(t, p)
}

type callback func()

func (c callback) NotifyEvent(waiter.EventMask) { c() }

// TestDeleteWaitsForWait: a Wait that is asking the object when Delete begins has
// its answer when Delete returns, be it that the Wait returns or sleeps on. Other
// registrations do not wait.
func TestDeleteWaitsForWait(t *testing.T) {
	for _, ready := range []epollbridge.Events{0, in} {
		t.Run(ready.String(), func(t *testing.T) {
			p, o, other := newPoller(t), new(object), new(object)
			var answered atomic.Bool
			asking, answer := make(chan struct{}), make(chan struct{})
			add(t, p, o, in, 1)
			o.hook = func() { close(asking); <-answer; answered.Store(true) }
			o.set(ready)
			o.tell(in)
			waiting := waitIn(p, -1)
			await(t, "Wait asks", asking)
			deleted := make(chan error, 1)
			go func() {
				err := p.Delete(&o.Registration)
				if !answered.Load() {
					t.Error("Delete returned while a Wait had the registration in hand")
				}
				deleted <- err
			}()
			for range 100 {
				add(t, p, other, in, 2)
				if err := p.Delete(&other.Registration); err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			close(answer)
			if err := await(t, "Delete", deleted); err != nil {
				t.Error(err)
			}
			p.Wake()
			if r := await(t, "Wait", waiting); r.err != nil || len(r.events) > 0 != (ready != 0) {
				t.Errorf("the Wait that came first got %v", r)
			}
			expect(t, p)
		})
	}
}

// slow is an object that takes its time to be registered with, and from.
type slow struct {
	object
	begun, resume chan struct{}
	registered    atomic.Int32
}

func (o *slow) EventRegister(*waiter.Entry) error {
	o.begun <- struct{}{}
	<-o.resume
	o.registered.Add(1)
	return nil
}

func (o *slow) EventUnregister(*waiter.Entry) {
	o.begun <- struct{}{}
	<-o.resume
	o.registered.Add(-1)
}

// TestCallsTakeTurns: what concerns one registration happens one after the other,
// whoever calls.
func TestCallsTakeTurns(t *testing.T) {
	p := newPoller(t)
	o := &slow{begun: make(chan struct{}, 4), resume: make(chan struct{})}
	added, deleted := make(chan error, 1), make(chan error, 2)
	go func() { added <- p.Add(&o.Registration, o, in, 1) }()
	await(t, "Add registers", o.begun)
	for range cap(deleted) {
		go func() { deleted <- p.Delete(&o.Registration) }()
	}
	eventually(t, "both Deletes wait", func() bool { return p.Blocked() == 2 })
	o.resume <- struct{}{}
	if err := await(t, "Add", added); err != nil {
		t.Error(err)
	}
	await(t, "one Delete unregisters", o.begun)
	eventually(t, "the other waits", func() bool { return p.Blocked() == 1 })
	if n := o.registered.Load(); n != 1 {
		t.Errorf("registered %d times when Delete begins", n)
	}
	o.resume <- struct{}{}
	first, second := await(t, "Delete", deleted), await(t, "Delete", deleted)
	if first != nil {
		first, second = second, first
	}
	if first != nil || !errors.Is(second, unix.ENOENT) {
		t.Errorf("Delete twice at once: %v and %v", first, second)
	}
	if n := o.registered.Load(); n != 0 || len(o.begun) != 0 {
		t.Errorf("registered %d times in the end", n)
	}
}

// TestDeleteIsNotStarved: though several goroutines wait in turn for an event that
// is always there, and have it in hand most of the time.
func TestDeleteIsNotStarved(t *testing.T) {
	p, o := newPoller(t), new(object)
	o.set(in)
	o.hook = runtime.Gosched
	stop := make(chan struct{})
	done := make(chan struct{})
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					done <- struct{}{}
					return
				default:
					look(t, p)
				}
			}
		}()
	}
	for range 200 {
		add(t, p, o, in, 1)
		if err := p.Delete(&o.Registration); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	for range 4 {
		await(t, "looking", done)
	}
}

// TestCloseWaitsForWait: so does Close.
func TestCloseWaitsForWait(t *testing.T) {
	p, o := epollbridge.New(), new(object)
	var answered atomic.Bool
	asking, answer := make(chan struct{}), make(chan struct{})
	add(t, p, o, in, 1)
	o.hook = func() { close(asking); <-answer; answered.Store(true) }
	o.tell(in)
	waiting := waitIn(p, -1)
	await(t, "Wait asks", asking)
	closed := make(chan struct{})
	go func() {
		p.Close()
		if !answered.Load() {
			t.Error("Close returned before a Wait")
		}
		close(closed)
	}()
	eventually(t, "Close begins", func() bool {
		return errors.Is(p.Modify(new(epollbridge.Registration), in, 0), net.ErrClosed)
	})
	runtime.Gosched()
	close(answer)
	await(t, "Close", closed)
	if r := await(t, "Wait", waiting); !errors.Is(r.err, net.ErrClosed) {
		t.Errorf("Wait got %v", r)
	}
}

// farewell is an object that notifies while it is unregistered from.
type farewell struct {
	object
	meanwhile func()
}

func (o *farewell) EventUnregister(e *waiter.Entry) {
	e.NotifyEvent(waiter.EventIn)
	o.meanwhile()
	o.object.EventUnregister(e)
}

// TestDeleteIsFinalFromTheStart: a callback that comes while Delete is under way
// brings nothing.
func TestDeleteIsFinalFromTheStart(t *testing.T) {
	p, o := newPoller(t), new(farewell)
	o.set(in)
	fd := fdOf(t, p)
	if err := p.Add(&o.Registration, o, in|edge, 1); err != nil {
		t.Fatal(err)
	}
	expect(t, p, event(in, 1))
	o.meanwhile = func() {
		level(t, fd, false, "during Delete")
		expect(t, p)
	}
	if err := p.Delete(&o.Registration); err != nil {
		t.Error(err)
	}
}

// tardy is an object that calls back after EventUnregister.
type tardy struct {
	object
	entry *waiter.Entry
}

func (o *tardy) EventRegister(e *waiter.Entry) error { o.entry = e; return nil }
func (o *tardy) EventUnregister(*waiter.Entry)       {}

// TestLateCallback: that of an object which breaks its promise does no harm.
func TestLateCallback(t *testing.T) {
	p, other, o := newPoller(t), newPoller(t), new(tardy)
	o.set(in)
	for range 2 {
		if err := p.Add(&o.Registration, o, in, 1); err != nil {
			t.Fatal(err)
		}
		if err := p.Delete(&o.Registration); err != nil {
			t.Fatal(err)
		}
		o.entry.NotifyEvent(waiter.EventIn)
		expect(t, p)
	}
	if err := other.Add(&o.Registration, o, in, 1); err != nil {
		t.Fatal(err)
	}
	o.entry.NotifyEvent(waiter.EventIn)
	expect(t, p)
	expect(t, other, event(in, 1))
}
