package nsrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperArg is argv[1] of the test binary as a test's own command; the helper's
// name follows.
const helperArg = "nsrun-test-helper"

// patience bounds everything that is waited for. It is never used up by a test
// that passes.
const patience = 20 * time.Second

// TestMain makes the test binary the copy, a helper, or the tests.
func TestMain(m *testing.M) {
	MaybeInit()
	if len(os.Args) > 2 && os.Args[1] == helperArg {
		if err := helpers()[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(ExitCode(err))
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func helpers() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"become-user":   becomeUser,
		"observe":       observe,
		"send":          sendDatagram,
		"gateway":       gatewayUntilKilled,
		"no-tun":        startWithoutTUN,
		"closed-tun":    startWithClosedTUN,
		"no-namespaces": startWithoutNamespaces,
	}
}

// helper is the command line of a helper.
func helper(args ...string) []string {
	return append([]string{"/proc/self/exe", helperArg}, args...)
}

// TestAsUser runs every other test again as an unprivileged user. The device node
// it may open is in a mount namespace of the run's own: the host's stays as it is.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("this run is a user's already")
		return
	}
	cmd := exec.Command("/proc/self/exe", helperArg, "become-user",
		"-test.skip=^TestAsUser$", "-test.v", "-test.timeout=2m")
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as an unprivileged user: %v\n%s", err, out)
	}
	if n := strings.Count(string(out), "\n--- PASS"); n < 10 {
		t.Fatalf("%d tests ran as an unprivileged user, want them all:\n%s", n, out)
	}
}

// becomeUser gives up root for nobody and runs the tests.
func becomeUser(args []string) error {
	const nobody = 65534
	runtime.LockOSThread()
	err := errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"),
		unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))),
		os.Chmod("/dev/net/tun", 0o666),
		syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody),
	)
	if err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append([]string{"nsrun.test"}, args...), os.Environ())
}

// start starts spec and closes it with the test, which must leave no fd behind.
func start(t *testing.T, spec Spec) *Child {
	t.Helper()
	before := openFDs(t)
	c, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		sameFDs(t, before)
	})
	return c
}

// run runs spec to its end and returns what it printed and its exit code.
func run(t *testing.T, spec Spec) (string, int) {
	t.Helper()
	r, w := pipe(t)
	spec.Stdout = w
	if spec.Stderr == nil {
		spec.Stderr = os.Stderr
	}
	c := start(t, spec)
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	out := readAll(t, r, w)
	code, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return out, code
}

// pipe returns a pipe that ends with the test.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// readAll closes w and reads until nobody holds it any more.
func readAll(t *testing.T, r, w *os.File) string {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// openFDs lists this process's files, without those of the runtime's poller.
func openFDs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		switch {
		case err != nil, strings.HasPrefix(to, "anon_inode:[event"):
			continue
		case strings.HasSuffix(to, "/tun"): // its path shrinks when the mount it was opened on goes
			to = "tun"
		}
		fds = append(fds, e.Name()+" "+to)
	}
	return fds
}

func sameFDs(t *testing.T, before []string) {
	t.Helper()
	for _, fd := range openFDs(t) {
		if !slices.Contains(before, fd) && !strings.Contains(fd, "pipe:") { // those end with the test
			t.Errorf("file left open: %s", fd)
		}
	}
}

func mustJSON[T any](t *testing.T, s string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %q", err, s)
	}
	return v
}

// oneSentence fails for an error that a person would not call one.
func oneSentence(t *testing.T, err error) {
	t.Helper()
	if s := err.Error(); strings.Contains(s, "\n") || len(s) < 20 || len(s) > 400 || strings.HasSuffix(s, ".") {
		t.Errorf("not one clear sentence: %q", s)
	}
}
