package link

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Timer is a time.Timer by the clock of Options. One goroutine may use it.
type Timer struct {
	C chan struct{} // gets a value when the timer fires
	t tcpip.Timer
}

// NewTimer returns a timer that fires after d by the endpoint's clock.
func (e *Endpoint) NewTimer(d time.Duration) Timer {
	fired := make(chan struct{}, 1)
	return Timer{fired, e.clock.AfterFunc(d, func() {
		select {
		case fired <- struct{}{}:
		default:
		}
	})}
}

// Stop keeps the timer from firing. One that just fires may still do so.
func (t Timer) Stop() {
	t.t.Stop()
	select {
	case <-t.C:
	default:
	}
}

// Reset lets it fire after d, and not when it would have.
func (t Timer) Reset(d time.Duration) {
	t.Stop()
	t.t.Reset(d)
}
