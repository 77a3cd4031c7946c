package epollbridge_test

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// plain is the least that can be watched: a queue and a state.
type plain struct {
	epollbridge.Registration

	queue waiter.Queue
	ready atomic.Uint32
}

func (o *plain) Readiness(mask waiter.EventMask) waiter.EventMask {
	return waiter.EventMask(o.ready.Load()) & mask
}

func (o *plain) EventRegister(e *waiter.Entry) error {
	o.queue.EventRegister(e)
	return nil
}

func (o *plain) EventUnregister(e *waiter.Entry) { o.queue.EventUnregister(e) }

func (o *plain) become(e epollbridge.Events) {
	o.ready.Store(uint32(e))
	o.queue.Notify(waiter.EventMask(e))
}

// TestNoAllocations: what happens all the time costs no memory.
func TestNoAllocations(t *testing.T) {
	p := newPoller(t)
	fdOf(t, p)
	o, busy := new(plain), new(plain)
	shared := epollbridge.Share(o)
	events := make([]epollbridge.Event, 4)
	if err := p.Add(&busy.Registration, busy, in|edge, 1); err != nil {
		t.Fatal(err)
	}
	check := func(what string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	check("Add and Delete", func() {
		_ = p.Add(&o.Registration, o, in|out, 1)
		_ = p.Delete(&o.Registration)
	})
	check("Add and Delete of a Shared", func() {
		_ = p.Add(&o.Registration, shared, in|excl, 1)
		_ = p.Delete(&o.Registration)
	})
	check("Modify", func() { _ = p.Modify(&busy.Registration, in|edge, 2) })
	check("delivery", func() {
		busy.become(in)
		if n, _ := p.Wait(events, 0); n != 1 {
			t.Error("nothing was delivered")
		}
	})
	busy.become(0)
	_, _ = p.Wait(events, 0)
	check("a Wait that times out", func() { _, _ = p.Wait(events, time.Microsecond) })
	check("a Wait that is woken", func() {
		p.Wake()
		_, _ = p.Wait(events, -1)
	})
	check("an error", func() { _ = p.Delete(&o.Registration) })
}

// TestNoAllocationsAsleep: nor does a Wait that sleeps until it is told.
func TestNoAllocationsAsleep(t *testing.T) {
	p := newPoller(t)
	o := new(plain)
	if err := p.Add(&o.Registration, o, in|edge, 1); err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{})
	go func() {
		events := make([]epollbridge.Event, 4)
		for {
			if _, err := p.Wait(events, time.Hour); err != nil {
				close(got)
				return
			}
			got <- struct{}{}
		}
	}()
	if n := testing.AllocsPerRun(1000, func() {
		for p.Stats().Sleeping == 0 {
			runtime.Gosched()
		}
		o.become(in)
		<-got
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s := p.Stats(); s.Wakeups != s.Delivered {
		t.Errorf("%+v, want one wakeup for each delivery", s)
	}
	p.Close()
	<-got
}

const million = 1_000_000

// crowd adds a million idle objects to p.
func crowd(b *testing.B, p *epollbridge.Poller) []plain {
	objects := make([]plain, million)
	for i := range objects {
		if err := p.Add(&objects[i].Registration, &objects[i], in, uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { p.Close() })
	runtime.GC()
	return objects
}

// order is a random order of the crowd, so that the caches are of no help.
func order() []int32 {
	o := make([]int32, million)
	for i, n := range rand.Perm(million) {
		o[i] = int32(n)
	}
	return o
}

// BenchmarkMemory reports what a registration costs beyond what its owner embeds.
func BenchmarkMemory(b *testing.B) {
	objects := make([]plain, million)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := epollbridge.New()
		for i := range objects {
			_ = p.Add(&objects[i].Registration, &objects[i], in, uint64(i))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/million, "B/registration")
		p.Close()
	}
}

// BenchmarkAddDelete adds and deletes one more among a million.
func BenchmarkAddDelete(b *testing.B) {
	p := epollbridge.New()
	crowd(b, p)
	o := new(plain)
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Add(&o.Registration, o, in, 1)
		_ = p.Delete(&o.Registration)
	}
}

// BenchmarkAddDeleteCold deletes a thousand of the million in random order, which
// no cache holds then, and adds them again.
func BenchmarkAddDeleteCold(b *testing.B) {
	const batch = 1000
	p := epollbridge.New()
	objects, turn := crowd(b, p), order()
	var added, deleted time.Duration
	batches := 0
	for b.Loop() {
		some := turn[batches*batch%million:][:batch]
		start := time.Now()
		for _, i := range some {
			_ = p.Delete(&objects[i].Registration)
		}
		deleted += time.Since(start)
		start = time.Now()
		for _, i := range some {
			_ = p.Add(&objects[i].Registration, &objects[i], in, 1)
		}
		added += time.Since(start)
		batches++
	}
	b.ReportMetric(float64(deleted.Nanoseconds())/float64(batches*batch), "ns/delete")
	b.ReportMetric(float64(added.Nanoseconds())/float64(batches*batch), "ns/add")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDelivery is from the notification of one among a million to its event.
func BenchmarkDelivery(b *testing.B) {
	for _, nested := range []bool{false, true} {
		name := "wait"
		if nested {
			name = "fd"
		}
		b.Run(name, func(b *testing.B) {
			p := epollbridge.New()
			objects, turn := crowd(b, p), order()
			if nested {
				fdOf(b, p)
			}
			events := make([]epollbridge.Event, 16)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				o := &objects[turn[i%million]]
				o.become(in)
				n, _ := p.Wait(events, 0)
				o.ready.Store(0)
				m, _ := p.Wait(events, 0) // finds that it is ready no more
				if n != 1 || m != 0 {
					b.Fatal(n, m)
				}
			}
		})
	}
}

// BenchmarkWakeup is from the notification to the event in a goroutine that slept,
// and back.
func BenchmarkWakeup(b *testing.B) {
	p := epollbridge.New()
	defer p.Close()
	there, back := new(plain), make(chan struct{})
	if err := p.Add(&there.Registration, there, in|edge, 1); err != nil {
		b.Fatal(err)
	}
	go func() {
		events := make([]epollbridge.Event, 16)
		for {
			if _, err := p.Wait(events, -1); err != nil {
				return
			}
			back <- struct{}{}
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		there.become(in)
		<-back
	}
}
