package epollbridge_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"

	"github.com/tungate/tungate/internal/testutil/wait"
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

// Short names for what most of these tests do.
const patience = wait.Patience

var eventually = wait.Until

func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	return wait.For(t, what, c)
}
