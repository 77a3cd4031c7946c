package flow_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the binary for a goroutine that outlives it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
