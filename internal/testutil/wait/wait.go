// Package wait is how tests wait: for a value, for a condition, and at the end for
// everything to be given back. It is apart from testutil because that one knows no
// testing.T: the benchmarks use it too.
package wait

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Patience bounds every wait: far more than a loaded machine needs.
const Patience = 30 * time.Second

// interval is how often Until looks.
const interval = time.Millisecond

// For returns what comes from c.
func For[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatalf("nothing within %v: %s", Patience, what)
		panic("unreachable")
	}
}

// Until returns once cond holds.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
		<-tick.C
	}
}

// Background runs f until the test ends, and no longer.
func Background(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Descriptors is how many descriptors this process has open, -1 if it cannot tell.
func Descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// Main runs a package's tests and returns the exit code: not 0 either for a
// goroutine or a descriptor that outlives them.
func Main(m *testing.M) int {
	if err := startPoller(); err != nil {
		panic(err)
	}
	before := Descriptors()
	code := m.Run()
	if code != 0 {
		return code // what is left then only buries the reason
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if left := Descriptors() - before; left != 0 {
		fmt.Fprintf(os.Stderr, "%d descriptors are left open\n", left)
		code = 1
	}
	return code
}

// startPoller opens what the runtime opens for its first file and never closes.
func startPoller() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(r.Close(), w.Close())
}
