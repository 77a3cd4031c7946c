package proxy

import (
	"os"
	"testing"

	"github.com/tungate/tungate/internal/testutil/wait"
)

// TestMain fails the binary for a goroutine or a descriptor that outlives it.
// With a job in the environment the binary is one of the tests' own children.
func TestMain(m *testing.M) {
	if job := os.Getenv(childJob); job != "" {
		os.Exit(runChild(job))
	}
	os.Exit(wait.Main(m))
}

// Short names for what most of these tests do.
const patience = wait.Patience

var (
	eventually  = wait.Until
	descriptors = wait.Descriptors
)

func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	return wait.For(t, what, c)
}
