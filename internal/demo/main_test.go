package demo

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/tungate/tungate/internal/nsrun"
)

// TestMain makes the test binary a process of the demo's, or the tests.
func TestMain(m *testing.M) {
	nsrun.MaybeInit()
	if code, ran := MaybeRun(context.Background()); ran {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}
