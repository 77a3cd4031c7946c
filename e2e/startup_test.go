package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
)

// try runs the gateway to its end and returns what it said.
func try(t *testing.T, n *testutil.Namespace, argv ...string) (code int, stdout, stderr string) {
	t.Helper()
	p, err := n.Start(exec.Command(argv[0], argv[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(long); err != nil && p.Alive() {
		p.Kill()
		t.Fatalf("%s: %v\n%s%s", strings.Join(argv, " "), err, p.Stdout, p.Stderr)
	}
	judgeLog(t, p.Stdout.String()+p.Stderr.String())
	return p.ExitCode(), p.Stdout.String(), p.Stderr.String()
}

// asNobody runs a command as a user without any privilege.
func asNobody(argv ...string) []string {
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"}, argv...)
}

// oneSentence wants a failure explained in one line.
func oneSentence(t *testing.T, stderr string, words ...string) {
	t.Helper()
	if lines := strings.Split(strings.TrimSpace(stderr), "\n"); len(lines) != 1 || len(lines[0]) < 20 {
		t.Errorf("want one sentence, got %q", stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			t.Errorf("want %q in %q", w, stderr)
		}
	}
}

// TestExamples checks every config that is shipped.
func TestExamples(t *testing.T) {
	lab := newLab(t)
	paths, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(paths) < 2 {
		t.Fatalf("%d examples, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if code, _, stderr := try(t, lab.Client, gateway, "check", "-c", path); code != 0 {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

// TestConfigFaults wants every fault of a file at once, each with its place.
func TestConfigFaults(t *testing.T) {
	lab := newLab(t)
	path := filepath.Join(t.TempDir(), "broken.yaml")
	const broken = `device:
  mtu: 40
  colour: red
proxy:
  handler: teleport
  connect_timeout: soon
`
	if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "run"} {
		t.Run(command, func(t *testing.T) {
			code, _, stderr := try(t, lab.Client, gateway, command, "-c", path)
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, want := range []string{
				path + ":2", "mtu", path + ":3", "colour", path + ":5", "handler", "direct", path + ":6", "connect_timeout",
			} {
				if !strings.Contains(stderr, want) {
					t.Errorf("want %q in:\n%s", want, stderr)
				}
			}
		})
	}
}

// TestUsage wants exit code 2 and something to read for a command line that makes
// no sense.
func TestUsage(t *testing.T) {
	lab := newLab(t)
	for name, args := range map[string][]string{
		"no command":       {},
		"unknown command":  {"fly"},
		"unknown flag":     {"run", "--colour"},
		"run without file": {"run"},
		"absent file":      {"run", "-c", filepath.Join(t.TempDir(), "absent.yaml")},
		"a directory":      {"check", "-c", t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := try(t, lab.Client, append([]string{gateway}, args...)...)
			if code != 2 || strings.TrimSpace(stdout+stderr) == "" {
				t.Errorf("exit code %d, want 2 and a message: %s%s", code, stdout, stderr)
			}
		})
	}
	if code, stdout, _ := try(t, lab.Client, gateway, "version"); code != 0 || strings.TrimSpace(stdout) == "" {
		t.Errorf("version: exit code %d, %q", code, stdout)
	}
}

// TestNameTaken wants a sentence when the device's name belongs to another.
func TestNameTaken(t *testing.T) {
	cfg := func(t *testing.T, admin string) string {
		t.Helper()
		return config(t, "direct.yaml", fields{"admin.listen": admin})
	}
	t.Run("by another kind of device", func(t *testing.T) {
		lab := newLab(t)
		if err := lab.Client.IP("link add " + testutil.TunName + " type bridge"); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := try(t, lab.Client, gateway, "run", "-c", cfg(t, "127.0.0.1:9090"))
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		oneSentence(t, stderr, testutil.TunName)
	})
	t.Run("by another gateway", func(t *testing.T) {
		lab := newLab(t)
		gw := start(t, lab, "direct.yaml", nil)
		code, _, stderr := try(t, lab.Client, gateway, "run", "-c", cfg(t, "127.0.0.1:9091"))
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		oneSentence(t, stderr, testutil.TunName)
		if _, err := gw.Get("/readyz"); err != nil {
			t.Errorf("the first gateway: %v", err)
		}
	})
	t.Run("admin address", func(t *testing.T) {
		lab := newLab(t)
		start(t, lab, "direct.yaml", nil)
		code, _, stderr := try(t, lab.Client, gateway, "run", "-c", config(t, "direct.yaml", fields{"device.name": "tun1"}))
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		oneSentence(t, stderr, "9090")
		if strings.Contains(links(t, lab.Client), "tun1") {
			t.Error("the device stays behind")
		}
	})
}

// TestNoPermission starts as nobody, with /dev/net/tun closed and open.
func TestNoPermission(t *testing.T) {
	lab := newLab(t)
	// /tmp may be closed to others; the config has to be readable.
	cfg := filepath.Join(filepath.Dir(gateway), "direct.yaml")
	b, err := os.ReadFile(filepath.Join(examples, "direct.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"device closed": 0o600, "device open": 0o666} {
		t.Run(name, func(t *testing.T) {
			tunMode(t, mode)
			code, _, stderr := try(t, lab.Client, asNobody(gateway, "run", "-c", cfg)...)
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			oneSentence(t, stderr)
		})
	}
}

// tunMode sets who may open /dev/net/tun, for the test alone: another run on this
// machine that wants to change it waits.
func tunMode(t *testing.T, mode os.FileMode) {
	t.Helper()
	f, err := os.Open("/dev/net/tun")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err == nil {
		err = f.Chmod(mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Chmod(fi.Mode().Perm()), f.Close()); err != nil {
			t.Error(err)
		}
	})
}
