package proxy

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the binary for a goroutine or a descriptor that outlives it.
// With a job in the environment the binary is one of the tests' own children.
func TestMain(m *testing.M) {
	if job := os.Getenv(childJob); job != "" {
		os.Exit(runChild(job))
	}
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
const patience = 20 * time.Second

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
