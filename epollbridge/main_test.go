package epollbridge_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"
)

// TestMain fails the binary for a goroutine, a descriptor or a packet buffer that
// outlives it.
func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	warmUp()
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if after := descriptors(); after != before {
			fmt.Fprintf(os.Stderr, "descriptors before: %s\nafter: %s\n", before, after)
			code = 1
		}
		refs.DoLeakCheck() // after a failure it would only bury the reason
	}
	os.Exit(code)
}

// warmUp lets the runtime make its own epoll and eventfd, which stay.
func warmUp() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// descriptors describes the sockets, eventfds and epolls of this process.
func descriptors() string {
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var open []string
	for _, e := range entries {
		to, err := os.Readlink(dir + e.Name())
		if err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "anon_inode:")) {
			open = append(open, e.Name()+" "+to)
		}
	}
	return strings.Join(open, ", ")
}

// patience bounds every wait of these tests: far more than a loaded machine needs.
const patience = 30 * time.Second

// eventually returns once cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-tick.C
	}
}

// await returns what comes from c.
func await[T any](t testing.TB, what string, c <-chan T) T {
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
