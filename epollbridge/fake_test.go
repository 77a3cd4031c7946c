package epollbridge_test

import (
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

const (
	in    = epollbridge.In
	out   = epollbridge.Out
	rdhup = epollbridge.RdHup
	hup   = epollbridge.Hup
	errs  = epollbridge.Err
	edge  = epollbridge.Edge
	once  = epollbridge.OneShot
	excl  = epollbridge.Exclusive
)

// object is a Waitable whose readiness the test sets.
type object struct {
	epollbridge.Registration

	queue waiter.Queue
	ready atomic.Uint64 // waiter.EventMask
	rude  bool          // answers more than it is asked
	asked atomic.Uint64 // calls of Readiness
	hook  func()        // called in Readiness
}

func (o *object) Readiness(mask waiter.EventMask) waiter.EventMask {
	o.asked.Add(1)
	if o.hook != nil {
		o.hook()
	}
	ready := waiter.EventMask(o.ready.Load())
	if o.rude {
		return ready
	}
	return ready & (mask | waiter.EventErr | waiter.EventHUp)
}

func (o *object) EventRegister(e *waiter.Entry) error {
	o.queue.EventRegister(e)
	return nil
}

func (o *object) EventUnregister(e *waiter.Entry) { o.queue.EventUnregister(e) }

// set changes the readiness without a word.
func (o *object) set(e epollbridge.Events) { o.ready.Store(uint64(e)) }

// tell notifies of e.
func (o *object) tell(e epollbridge.Events) { o.queue.Notify(waiter.EventMask(e)) }

// become changes the readiness and notifies of it.
func (o *object) become(e epollbridge.Events) {
	o.set(e)
	o.tell(e)
}

// newPoller returns a Poller that the end of the test closes.
func newPoller(t testing.TB) *epollbridge.Poller {
	p := epollbridge.New()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// add adds o to p with its own Registration.
func add(t testing.TB, p *epollbridge.Poller, o *object, e epollbridge.Events, data uint64) {
	t.Helper()
	if err := p.Add(&o.Registration, o, e, data); err != nil {
		t.Fatalf("Add: %v", err)
	}
}

// look returns what Wait with a timeout of 0 returns.
func look(t testing.TB, p *epollbridge.Poller) []epollbridge.Event {
	t.Helper()
	events := make([]epollbridge.Event, 64)
	n, err := p.Wait(events, 0)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return events[:n]
}

// expect checks what Wait with a timeout of 0 returns.
func expect(t testing.TB, p *epollbridge.Poller, want ...epollbridge.Event) {
	t.Helper()
	got := look(t, p)
	if len(got) != len(want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("events %v, want %v", got, want)
		}
	}
}

func event(e epollbridge.Events, data uint64) epollbridge.Event {
	return epollbridge.Event{Events: e, Data: data}
}

// result is what one Wait returned.
type result struct {
	events []epollbridge.Event
	err    error
}

// waitIn calls Wait in a goroutine.
func waitIn(p *epollbridge.Poller, timeout time.Duration) <-chan result {
	c := make(chan result, 1)
	go func() {
		events := make([]epollbridge.Event, 8)
		n, err := p.Wait(events, timeout)
		c <- result{events[:n], err}
	}()
	return c
}
