package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tungate/tungate/internal/testutil"
)

// gateway is the binary under test; configs are the examples' folder.
var gateway, examples string

// raceEnv asks for a gateway built with the race detector.
const raceEnv = "TUNGATE_E2E_RACE"

func raceBuild() bool { return os.Getenv(raceEnv) == "1" }

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run builds the gateway once, runs the tests and removes what was built.
func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("these tests make network namespaces and devices; run them as root (make e2e)")
	}
	if err := testutil.Sweep(); err != nil {
		return 0, err
	}
	root, err := testutil.RepoRoot()
	if err != nil {
		return 0, err
	}
	examples = filepath.Join(root, "examples")
	dir, err := os.MkdirTemp("", "tungate-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Tests run it as another user, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	if raceBuild() { // it would sleep for a second at every exit
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
			return 0, err
		}
	}
	gateway = filepath.Join(dir, "gateway")
	if err := testutil.BuildGateway(gateway, raceBuild()); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
