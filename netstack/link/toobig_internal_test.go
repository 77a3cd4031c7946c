package link

import (
	"testing"
	"time"
)

// TestTooBigLimit lets a burst through, and then as many as the rate allows.
func TestTooBigLimit(t *testing.T) {
	var b tooBig
	now := time.Unix(1000, 0)
	count := func(n int) (allowed int) {
		for range n {
			if b.allow(now) {
				allowed++
			}
		}
		return allowed
	}
	if got := count(1000); got != tooBigBurst {
		t.Errorf("%d at once, want %d", got, tooBigBurst)
	}
	now = now.Add(20 * time.Millisecond)
	if got := count(1000); got != 20 {
		t.Errorf("%d after 20 ms, want 20", got)
	}
	now = now.Add(time.Hour)
	if got := count(1000); got != tooBigBurst {
		t.Errorf("%d after an hour, want %d", got, tooBigBurst)
	}
}

// TestPin keeps a goroutine on a processor it may use, and lets it go.
func TestPin(t *testing.T) {
	for n := range 5 {
		undo := Pin(n)
		undo()
	}
}
