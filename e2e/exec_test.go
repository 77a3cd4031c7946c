package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// user is who runs gateway exec.
type user struct {
	name string
	as   func(argv ...string) []string
}

// eachUser runs f as root and as nobody, with /dev/net/tun as ordinary
// distributions have it.
func eachUser(t *testing.T, f func(t *testing.T, u user)) {
	t.Helper()
	for _, u := range []user{
		{"root", func(argv ...string) []string { return argv }},
		{"nobody", asNobody},
	} {
		t.Run(u.name, func(t *testing.T) {
			if u.name != "root" {
				tunMode(t, 0o666)
			}
			f(t, u)
		})
	}
}

// inside runs argv in the client's namespace as ip netns exec does: with the
// namespace's own /etc/resolv.conf.
func inside(n *testutil.Namespace, argv []string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.Name}, argv...)...)
	cmd.Dir = "/"
	return cmd
}

// resolvConf gives a namespace a resolver of its own.
func resolvConf(t *testing.T, n *testutil.Namespace, server netip.Addr) {
	t.Helper()
	dir := filepath.Join("/etc/netns", n.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Dir(dir)) // if nobody else is in it
	})
	text := fmt.Sprintf("nameserver %s\n", server)
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestExec fetches a page from inside gateway exec, by address and by name.
func TestExec(t *testing.T) {
	lab := newLab(t)
	const page = "hello from the other side"
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
	var urls []string
	for _, f := range families() {
		url := serveHTTP(t, lab.Server, netip.AddrPortFrom(f.server, 8080), handler)
		urls = append(urls, url, "http://"+dnsName+":8080/")
	}
	dns := netip.MustParseAddr("203.0.113.53")
	serveDNS(t, lab.Server, netip.AddrPortFrom(dns, 53), testutil.ServerV4, testutil.ServerV6)
	resolvConf(t, lab.Client, dns)
	eachUser(t, func(t *testing.T, u user) {
		for i, url := range urls {
			f := families()[i/2]
			t.Run(f.name+" "+url, func(t *testing.T) {
				argv := u.as(gateway, "exec", "--", "curl", f.flag, "-sSfg", "--max-time", "10", url)
				out, stderr, err := lab.Client.Run(long, inside(lab.Client, argv))
				if err != nil || out != page {
					t.Errorf("%v: %q %s", err, out, stderr)
				}
			})
		}
		t.Run("all in one", func(t *testing.T) {
			argv := u.as(gateway, "exec", "--", "sh", "-c",
				"for i in 1 2 3 4 5 6 7 8 9 10; do curl -sSf --max-time 10 http://"+dnsName+":8080/ || exit 1; done")
			out, stderr, err := lab.Client.Run(long, inside(lab.Client, argv))
			if err != nil || out != strings.Repeat(page, 10) {
				t.Errorf("%v: %q %s", err, out, stderr)
			}
		})
	})
}

// TestExecStatus wants the command's exit code, the shell's codes for what cannot
// be run, and 128+n after a signal.
func TestExecStatus(t *testing.T) {
	lab := newLab(t)
	eachUser(t, func(t *testing.T, u user) {
		for _, c := range []struct {
			name string
			argv []string
			code int
		}{
			{"true", []string{"true"}, 0},
			{"exit 7", []string{"sh", "-c", "exit 7"}, 7},
			{"SIGTERM", []string{"sh", "-c", "kill -TERM $$"}, 128 + int(syscall.SIGTERM)},
			{"SIGKILL", []string{"sh", "-c", "kill -KILL $$"}, 128 + int(syscall.SIGKILL)},
			{"not found", []string{"/nonexistent/program"}, 127},
			{"not executable", []string{"/etc/hostname"}, 126},
		} {
			t.Run(c.name, func(t *testing.T) {
				code, _, stderr := try(t, lab.Client, u.as(append([]string{gateway, "exec", "--"}, c.argv...)...)...)
				if code != c.code {
					t.Errorf("exit code %d, want %d: %s", code, c.code, stderr)
				}
			})
		}
		t.Run("no command", func(t *testing.T) {
			if code, _, _ := try(t, lab.Client, u.as(gateway, "exec")...); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
		})
	})
}

// TestExecPipes wants standard input and output to be the command's, to the byte.
func TestExecPipes(t *testing.T) {
	const size = 10 << 20
	lab := newLab(t)
	eachUser(t, func(t *testing.T, u user) {
		argv := u.as(gateway, "exec", "--", "cat")
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = io.LimitReader(pattern(9), size)
		r, w := io.Pipe()
		cmd.Stdout = w
		compared := background(func() error {
			err := receive(r, 9, size)
			_, _ = io.Copy(io.Discard, r)
			return err
		})
		_, stderr, err := lab.Client.Run(long, cmd)
		w.Close()
		if err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if err := result(t, compared, soon); err != nil {
			t.Error(err)
		}
	})
}

// TestExecAlone wants the command to see no network but the gateway's, and to have
// no way to the host's own services.
func TestExecAlone(t *testing.T) {
	lab := newLab(t)
	tripwire(t, lab.Client, 8081)
	eachUser(t, func(t *testing.T, u user) {
		_, out, _ := try(t, lab.Client, u.as(gateway, "exec", "--", "ip", "-o", "link", "show")...)
		if names := strings.Count(out, "\n"); names != 2 || !strings.Contains(out, " lo:") || strings.Contains(out, "up0") {
			t.Errorf("want lo and one device, got:\n%s", out)
		}
		for _, addr := range []string{"192.0.2.1", "127.0.0.1", "169.254.169.254", "[fd00:2::1]", "[64:ff9b::c000:201]"} {
			code, _, _ := try(t, lab.Client, u.as(gateway, "exec", "--", "curl", "-sg", "--max-time", "3", "http://"+addr+":8081/")...)
			if code != 7 { // curl: failed to connect
				t.Errorf("%s: curl ended with %d, want 7", addr, code)
			}
		}
	})
}

// TestExecSignal sends SIGTERM to the gateway and wants the command to get it, and
// kills the gateway and wants the command to go with it.
func TestExecSignal(t *testing.T) {
	lab := newLab(t)
	eachUser(t, func(t *testing.T, u user) {
		begin := func(t *testing.T, script string) *testutil.Process {
			t.Helper()
			argv := u.as(gateway, "exec", "--", "sh", "-c", script)
			p, err := lab.Client.Start(exec.Command(argv[0], argv[1:]...))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Kill)
			eventually(t, soon, func() error {
				if !strings.Contains(p.Stdout.String(), "ready") {
					return fmt.Errorf("the command has not begun: %s", p.Stderr)
				}
				return nil
			})
			return p
		}
		t.Run("SIGTERM", func(t *testing.T) {
			p := begin(t, `trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait(soon)
			if code := p.ExitCode(); code != 9 {
				t.Errorf("exit code %d, want 9: %s", code, p.Stderr)
			}
		})
		t.Run("SIGKILL", func(t *testing.T) {
			p := begin(t, `echo ready $$; while :; do sleep 0.05; done`)
			var pid int
			if _, err := fmt.Sscanf(p.Stdout.String(), "ready %d", &pid); err != nil {
				t.Fatal(err)
			}
			if err := p.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, soon, func() error {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && !strings.Contains(string(b), "Z (zombie)") {
					return fmt.Errorf("the command (%d) lives on", pid)
				}
				return nil
			})
		})
	})
}

// TestExecClosedTun wants a sentence where /dev/net/tun is closed to the user.
func TestExecClosedTun(t *testing.T) {
	lab := newLab(t)
	tunMode(t, 0o600)
	code, _, stderr := try(t, lab.Client, asNobody(gateway, "exec", "--", "true")...)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	oneSentence(t, stderr, "/dev/net/tun")
}

// TestDemo wants the demonstration to end well in half a minute, with a table.
func TestDemo(t *testing.T) {
	if deviceChosen() {
		return // the demo makes its own
	}
	lab := newLab(t)
	eachUser(t, func(t *testing.T, u user) {
		within(t, 30*time.Second, "gateway demo", func() {
			code, stdout, stderr := try(t, lab.Client, u.as(gateway, "demo")...)
			if code != 0 {
				t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
			}
			for _, want := range []string{"connections", "Gbit/s", "round trip", "memory"} {
				if !strings.Contains(strings.ToLower(stdout), strings.ToLower(want)) {
					t.Errorf("want %q in:\n%s", want, stdout)
				}
			}
		})
	})
}
