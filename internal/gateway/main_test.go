package gateway_test

import (
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/refs"

	"github.com/tungate/tungate/internal/testutil/wait"
)

// TestMain fails the binary for a goroutine, a descriptor or a packet buffer that
// outlives it.
func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	code := wait.Main(m)
	refs.DoLeakCheck()
	os.Exit(code)
}
