package netstack

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tungate/tungate/internal/testutil/wait"
)

const far = time.Hour

// TestTimer: what the runtime's does, in the order that matters.
func TestTimer(t *testing.T) {
	c := newClock()
	fired := make(chan struct{}, 1)
	f := func() { fired <- struct{}{} }

	tm := c.AfterFunc(0, f)
	<-fired
	if tm.Stop() {
		t.Error("Stop of a timer that has fired reported true")
	}
	tm.Reset(far)
	if !tm.Stop() {
		t.Error("Stop of one that runs reported false")
	}
	if tm.Stop() {
		t.Error("Stop of one that is stopped reported true")
	}
	tm.Reset(far)
	tm.Reset(0)
	<-fired
	other := c.AfterFunc(far, func() { t.Error("fired an hour early") })
	tm.Reset(0) // by an alarm that was another's, or its own
	<-fired
	if !other.Stop() {
		t.Error("another timer's end stopped one")
	}
}

// TestTimerIdle: one that does not run holds nothing but itself.
func TestTimerIdle(t *testing.T) {
	tm := newClock().AfterFunc(far, func() {}).(*timer)
	if tm.run == nil {
		t.Error("runs without an alarm")
	}
	tm.Stop()
	if tm.run != nil {
		t.Error("stopped, it has an alarm")
	}
	if size := unsafe.Sizeof(*tm); unsafe.Sizeof(uintptr(0)) == 8 && size > 32 {
		t.Errorf("%d bytes; want 32", size)
	}
}

// TestTimerRace: many stop, set and fire at once. There is a run for each Reset that no
// Stop took back, and one more after the last.
func TestTimerRace(t *testing.T) {
	const rounds = 400
	type timed struct {
		tcpip.Timer
		runs   atomic.Int64
		starts int64
	}
	c := newClock()
	timers := make([]timed, 50)
	var all sync.WaitGroup
	for i := range timers {
		all.Go(func() {
			tm := &timers[i]
			tm.Timer = c.AfterFunc(far, func() { tm.runs.Add(1) })
			tm.starts = 1
			for n := range rounds {
				if tm.Stop() {
					tm.starts--
				}
				tm.Reset(time.Duration(n%3) * time.Microsecond)
				tm.starts++
				if n%7 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	all.Wait()
	for i := range timers {
		tm := &timers[i]
		wait.Until(t, "a run for each start", func() bool { return tm.runs.Load() == tm.starts })
		tm.Reset(0)
		wait.Until(t, "one more", func() bool { return tm.runs.Load() == tm.starts+1 })
	}
}
