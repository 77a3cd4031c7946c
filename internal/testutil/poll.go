package testutil

import (
	"fmt"
	"time"
)

// pollInterval is how often Poll looks: often enough not to be felt, rare enough
// to leave a core to the program that is waited for.
const pollInterval = 5 * time.Millisecond

// Poll calls cond until it returns nil, at most for timeout; then it returns
// cond's last error.
func Poll(timeout time.Duration, cond func() error) error {
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", timeout, err)
		}
		<-tick.C
	}
}

// Settle calls sample until its value has moved by less than tolerance (a share)
// over a window of readings a tenth of a second apart, at most for timeout, and
// returns the last value.
func Settle(timeout time.Duration, tolerance float64, sample func() (int64, error)) (int64, error) {
	const window = 10
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last []int64
	for {
		v, err := sample()
		if err != nil {
			return 0, err
		}
		last = append(last, v)
		if n := len(last); n >= window {
			lo, hi := last[n-window], last[n-window]
			for _, x := range last[n-window:] {
				lo, hi = min(lo, x), max(hi, x)
			}
			if float64(hi-lo) <= tolerance*float64(hi) {
				return v, nil
			}
		}
		if time.Now().After(deadline) {
			return v, nil
		}
		<-tick.C
	}
}
