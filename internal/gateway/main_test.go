package gateway_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"
)

// TestMain fails the binary for a goroutine, a descriptor or a packet buffer that
// outlives it.
func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	if err := startPoller(); err != nil {
		panic(err)
	}
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if left := descriptors() - before; left != 0 {
			fmt.Fprintf(os.Stderr, "%d descriptors are left open\n", left)
			code = 1
		}
	}
	refs.DoLeakCheck()
	os.Exit(code)
}

// descriptors is how many descriptors this process has open.
func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// startPoller opens what the runtime opens for its first file and never closes.
func startPoller() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(r.Close(), w.Close())
}

// patience bounds every wait of these tests: far more than a loaded machine needs.
const patience = 30 * time.Second

// await returns what comes from c.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatalf("nothing within %v: %s", patience, what)
		panic("unreachable")
	}
}

// eventually returns once cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-tick.C
	}
}
