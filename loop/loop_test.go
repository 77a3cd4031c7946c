package loop_test

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a loop until the test ends.
func start(t testing.TB) *loop.Loop {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	wait.Background(t, l.Run)
	return l
}

// on runs f on the loop's goroutine and waits for it.
func on(t testing.TB, l *loop.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { f(); close(done) }))
	if !l.Post(&task) {
		t.Fatal("the loop has ended")
	}
	<-done
}

// TestPost runs every task posted by many goroutines, and one posted while queued
// once.
func TestPost(t *testing.T) {
	l := start(t)
	const workers, each = 8, 2000
	var ran atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			done := make(chan struct{})
			var task loop.Task
			task.Init(loop.RunnerFunc(func() { ran.Add(1); done <- struct{}{} }))
			for range each {
				l.Post(&task)
				<-done
			}
		})
	}
	wg.Wait()
	if ran.Load() != workers*each {
		t.Errorf("%d tasks ran of %d", ran.Load(), workers*each)
	}
	n := 0
	var again loop.Task
	again.Init(loop.RunnerFunc(func() { n++ }))
	on(t, l, func() {
		for range 10 {
			l.Post(&again)
		}
	})
	on(t, l, func() {
		if n != 1 {
			t.Errorf("a task posted 10 times ran %d times", n)
		}
	})
}

// TestPostFromTask runs what a task posts in a later turn, so that it starves
// nobody.
func TestPostFromTask(t *testing.T) {
	l := start(t)
	var self loop.Task
	turns := 0
	done := make(chan struct{})
	self.Init(loop.RunnerFunc(func() {
		if turns++; turns < 1000 {
			l.Post(&self)
		} else {
			close(done)
		}
	}))
	l.Post(&self)
	<-done
}

// TestSource tells of readiness, once per edge, and never after Remove.
func TestSource(t *testing.T) {
	l := start(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	got := make(chan uint32, 16)
	var s loop.Source
	s.Init(loop.HandlerFunc(func(ev uint32) { got <- ev }))
	on(t, l, func() {
		if err := l.Add(&s, int(r.Fd()), unix.EPOLLIN|unix.EPOLLET); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if ev := <-got; ev&unix.EPOLLIN == 0 {
			t.Errorf("events %#x, want EPOLLIN", ev)
		}
	}
	on(t, l, func() { l.Remove(&s); l.Remove(&s) })
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {})
	on(t, l, func() {})
	select {
	case ev := <-got:
		t.Errorf("events %#x after Remove", ev)
	default:
	}
}

// TestReusedDescriptor drops an event whose descriptor was closed, and its number
// taken by another source, by an earlier event of the same batch.
func TestReusedDescriptor(t *testing.T) {
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	pair := func() (int, int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return p[0], p[1]
	}
	var srcs [2]loop.Source
	var fresh loop.Source
	fresh.Init(loop.HandlerFunc(func(uint32) { t.Error("the new source got the old one's event") }))
	rd, wr := [2]int{}, [2]int{}
	fired := make(chan struct{}, 2)
	var newR, newW int
	for i := range srcs {
		rd[i], wr[i] = pair()
		srcs[i].Init(loop.HandlerFunc(func(uint32) {
			other := 1 - i
			l.Remove(&srcs[i])
			l.Remove(&srcs[other])
			_ = unix.Close(rd[other])
			_ = unix.Close(wr[other])
			newR, newW = pair()
			if err := l.Add(&fresh, newR, unix.EPOLLIN); err != nil {
				t.Error(err)
			}
			fired <- struct{}{}
		}))
		if err := l.Add(&srcs[i], rd[i], unix.EPOLLIN); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(wr[i], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	<-fired
	on(t, l, func() {})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = unix.Close(newR)
	_ = unix.Close(newW)
	if len(fired) != 0 {
		t.Error("both old sources fired, though each removes the other")
	}
}

// TestTimers fires in order, not early, and not what was stopped or set anew.
func TestTimers(t *testing.T) {
	l := start(t)
	const n = 200
	type entry struct {
		loop.Timer
		due   time.Time
		fired time.Time
		stop  bool
	}
	entries := make([]entry, n)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	var left atomic.Int64
	done := make(chan struct{})
	on(t, l, func() {
		for i := range entries {
			e := &entries[i]
			e.Init(loop.ExpirerFunc(func() {
				e.fired = time.Now()
				if left.Add(-1) == 0 {
					close(done)
				}
			}))
			d := time.Duration(rng.IntN(400)) * time.Millisecond
			l.Set(&e.Timer, time.Hour) // replaced below
			e.due = time.Now().Add(d)
			l.Set(&e.Timer, d)
			if e.stop = rng.IntN(3) == 0; e.stop {
				l.Stop(&e.Timer)
				l.Stop(&e.Timer)
			} else {
				left.Add(1)
			}
		}
	})
	<-done
	on(t, l, func() {
		for i := range entries {
			e := &entries[i]
			switch {
			case e.stop && !e.fired.IsZero():
				t.Errorf("seed %d: timer %d was stopped and fired", seed, i)
			case !e.stop && e.fired.Before(e.due):
				t.Errorf("seed %d: timer %d fired %v early", seed, i, e.due.Sub(e.fired))
			}
		}
	})
}

// TestTimerChanges lets timers stop, set and re-set each other from inside their
// own call.
func TestTimerChanges(t *testing.T) {
	l := start(t)
	var a, b, c loop.Timer
	order := ""
	done := make(chan struct{})
	a.Init(loop.ExpirerFunc(func() {
		order += "a"
		l.Stop(&b)
		l.Set(&c, 200*time.Millisecond)
	}))
	b.Init(loop.ExpirerFunc(func() { order += "b" }))
	c.Init(loop.ExpirerFunc(func() {
		order += "c"
		if len(order) < 4 {
			l.Set(&c, 0)
			return
		}
		close(done)
	}))
	on(t, l, func() {
		l.Set(&a, 0)
		l.Set(&b, 0)
		l.Set(&c, 0)
	})
	<-done
	if order != "accc" {
		t.Errorf("fired %q, want %q", order, "accc")
	}
}

// TestClosed refuses tasks after the end, and closes a loop that never ran.
func TestClosed(t *testing.T) {
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { t.Error("a task ran on a closed loop") }))
	if l.Post(&task) {
		t.Error("a closed loop took a task")
	}
}

// TestAllocs: nothing the loop does in steady state allocates.
func TestAllocs(t *testing.T) {
	l := start(t)
	var task loop.Task
	done := make(chan struct{})
	var timer loop.Timer
	timer.Init(loop.ExpirerFunc(func() {}))
	task.Init(loop.RunnerFunc(func() {
		l.Set(&timer, time.Hour)
		l.Stop(&timer)
		done <- struct{}{}
	}))
	if n := testing.AllocsPerRun(1000, func() { l.Post(&task); <-done }); n != 0 {
		t.Errorf("%v allocations per turn", n)
	}
}

func BenchmarkPost(b *testing.B) {
	l := start(b)
	var task loop.Task
	done := make(chan struct{})
	task.Init(loop.RunnerFunc(func() { done <- struct{}{} }))
	for b.Loop() {
		l.Post(&task)
		<-done
	}
}
