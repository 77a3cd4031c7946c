package netstack_test

import (
	"container/heap"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// simClock is a tcpip.Clock that stands still between two timers. gVisor's own
// ManualClock fires those of one instant in the order of a map and does not say when
// the next is due; this one fires them one by one, in the order they were set in.
type simClock struct {
	mu   sync.Mutex
	now  time.Duration
	made int
	due  timers
}

type simTimer struct {
	c     *simClock
	f     func()
	at    time.Duration
	order int
	index int // in due; negative if not in it
}

func (c *simClock) Now() time.Time { return time.Unix(0, 0).Add(c.elapsed()) }

func (c *simClock) NowMonotonic() tcpip.MonotonicTime { return tcpip.MonotonicTime{}.Add(c.elapsed()) }

func (c *simClock) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *simClock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &simTimer{c: c, f: f, index: -1}
	t.Reset(d)
	return t
}

// step fires the next timer, unless that is due after the end.
func (c *simClock) step(end time.Duration) bool {
	c.mu.Lock()
	if len(c.due) == 0 || c.due[0].at > end {
		c.mu.Unlock()
		return false
	}
	t := heap.Pop(&c.due).(*simTimer)
	c.now = t.at
	c.mu.Unlock()
	t.f()
	return true
}

// Stop implements tcpip.Timer.
func (t *simTimer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.c.due, t.index)
	return true
}

// Reset implements tcpip.Timer.
func (t *simTimer) Reset(d time.Duration) {
	t.Stop()
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.c.made++
	t.at, t.order = t.c.now+max(0, d), t.c.made
	heap.Push(&t.c.due, t)
}

// timers is a heap.
type timers []*simTimer

func (h *timers) Len() int { return len(*h) }

func (h *timers) Less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	return a.at < b.at || a.at == b.at && a.order < b.order
}

func (h *timers) Swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (h *timers) Push(x any) {
	t := x.(*simTimer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	t.index = -1
	*h = (*h)[:last]
	return t
}

// settler waits until every other goroutine waits for something: a packet, a timer, a
// call. It needs GOMAXPROCS(1), under which nobody runs while it looks.
type settler struct{ sample [1]metrics.Sample }

func (s *settler) settle() {
	s.sample[0].Name = "/sched/goroutines/runnable:goroutines"
	for {
		runtime.Gosched()
		if metrics.Read(s.sample[:]); s.sample[0].Value.Uint64() == 0 {
			return
		}
	}
}

// pass lets a time go by.
func (c *simClock) pass(d time.Duration) {
	var s settler
	end := c.elapsed() + d
	c.AfterFunc(d, func() {})
	for s.settle(); c.step(end); s.settle() {
	}
}
