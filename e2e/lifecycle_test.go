package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// load keeps a connection busy both ways until it fails, and closes begun once
// bytes have come back.
func load(t *testing.T, lab *testutil.Lab, f family) (done <-chan error) {
	t.Helper()
	to := serve(t, lab.Server, f.server, 0, echo)
	c := dial(t, lab.Client, to)
	begun := make(chan struct{})
	done = background(func() error {
		writer := background(func() error { _, err := io.Copy(c, pattern(1)); return err })
		if err := receive(c, 1, 1<<20); err != nil {
			return errors.Join(err, c.Close(), <-writer)
		}
		close(begun)
		_, err := io.Copy(io.Discard, c)
		return errors.Join(err, c.Close(), <-writer)
	})
	select {
	case <-begun:
	case err := <-done:
		t.Fatalf("the load did not begin: %v", err)
	}
	return done
}

// links and rules are what a gateway could leave behind in a namespace.
func links(t *testing.T, n *testutil.Namespace) string {
	t.Helper()
	return output(t, n, "ip", "-o", "link", "show") + output(t, n, "ip", "rule", "show") + output(t, n, "ip", "-6", "rule", "show")
}

func output(t *testing.T, n *testutil.Namespace, name string, args ...string) string {
	t.Helper()
	out, err := n.Output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// errorLines are the log's lines of level error.
func errorLines(log string) []string {
	var out []string
	for line := range strings.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" {
			out = append(out, entry.Msg)
		}
	}
	return out
}

// TestDeviceDeleted takes the device away under load: the gateway says so in one
// line and ends within a second.
func TestDeviceDeleted(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		lab := newLab(t)
		gw := start(t, lab, "direct.yaml", nil)
		load(t, lab, f)
		if err := lab.Client.IP("link del " + testutil.TunName); err != nil {
			t.Fatal(err)
		}
		err := gw.Wait(bounded(time.Second))
		if errors.Is(err, testutil.ErrStillRunning) {
			t.Fatalf("still running a second after its device went")
		}
		if code := gw.ExitCode(); code != 1 {
			t.Errorf("exit code %d (%v), want 1", code, err)
		}
		lines := errorLines(gw.Log())
		if len(lines) != 1 || !strings.Contains(lines[0], testutil.TunName) {
			t.Errorf("want one error line that names the device, got %q", lines)
		}
	})
}

// TestDeviceRecreated takes the device away: it is there again within a second, and
// a connection from before goes on.
func TestDeviceRecreated(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"device.on_delete": "recreate"})
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		c := dial(t, lab.Client, to)
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
		if err := lab.Client.IP("link del " + testutil.TunName); err != nil {
			t.Fatal(err)
		}
		eventually(t, soon, lab.RouteIntoDevice) // there is nothing to route into before
		if err := exchange(c); err != nil {
			t.Errorf("the connection from before: %v", err)
		}
		if err := exchange(dial(t, lab.Client, to)); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	})
	gw.counts(t, exactly(1), "tungate_device_up")
	if lines := errorLines(gw.Log()); len(lines) != 0 {
		t.Errorf("error lines: %q", lines)
	}
}

// bounded is a promised time, with the allowance that the race detector needs.
func bounded(d time.Duration) time.Duration {
	if raceBuild() {
		return 5 * d
	}
	return d
}

// TestLinkDownUp takes the link down and up again: connections go on.
func TestLinkDownUp(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	// Else the kernel takes IPv6 addresses away with the link.
	if err := lab.Client.Sysctl("ipv6/conf/"+testutil.TunName+"/keep_addr_on_down", "1"); err != nil {
		t.Fatal(err)
	}
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		c := dial(t, lab.Client, to)
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
		if err := lab.Client.IP("link set " + testutil.TunName + " down"); err != nil {
			t.Fatal(err)
		}
		// The client's kernel keeps sending, and the gateway's stack does too.
		if _, err := gw.Get("/healthz"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(lab.Client.IP("link set "+testutil.TunName+" up"), lab.RouteIntoDevice()); err != nil {
			t.Fatal(err)
		}
		if err := exchange(dial(t, lab.Client, to)); err != nil {
			t.Errorf("a new connection: %v", err)
		}
		if err := exchange(c); err != nil {
			t.Errorf("the connection from before: %v", err)
		}
	})
	if !gw.Alive() {
		t.Error("the gateway ended")
	}
}

// TestTerm stops the gateway under load: it refuses new connections, lets those
// finish that do, cuts the others at shutdown_timeout, and leaves nothing.
func TestTerm(t *testing.T) {
	const patience = 2 * time.Second
	eachFamily(t, func(t *testing.T, f family) {
		lab := newLab(t)
		before := links(t, lab.Client)
		gw := start(t, lab, "direct.yaml", fields{"shutdown_timeout": patience.String()})
		endless := load(t, lab, f)
		finish, served := make(chan struct{}), make(chan error, 1)
		to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
			if err := receive(c, 1, 10); err != nil {
				served <- err
				return
			}
			<-finish
			served <- errors.Join(send(c, 2, 1<<20), c.CloseWrite())
		})
		polite := dial(t, lab.Client, to)
		if err := send(polite, 1, 10); err != nil {
			t.Fatal(err)
		}
		idle := make([]*net.TCPConn, 50)
		echoes := serve(t, lab.Server, f.server, 0, echo)
		for i := range idle {
			idle[i] = dial(t, lab.Client, echoes)
			if err := exchange(idle[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := gw.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, soon, func() error { // draining now
			if _, err := gw.Get("/readyz"); err == nil {
				return errors.New("still ready")
			}
			return nil
		})
		if c, err := lab.Client.Dial("tcp", echoes.String(), soon); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new connection while stopping: %v, %v, want ECONNREFUSED", c, err)
		}
		close(finish)
		if err := receive(polite, 2, 1<<20); err != nil {
			t.Errorf("a transfer that ends in time: %v", err)
		}
		if err := errors.Join(ended(polite), result(t, served, soon)); err != nil {
			t.Errorf("a transfer that ends in time: %v", err)
		}
		err := gw.Wait(patience + bounded(time.Second))
		if took := time.Since(began); err != nil || took < patience-time.Second/2 {
			t.Fatalf("ended after %v: %v", took, err)
		}
		if err := result(t, endless, soon); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the transfer that never ends: %v, want ECONNRESET", err)
		}
		for _, c := range idle {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("an idle connection: %v, want ECONNRESET", err)
				break
			}
		}
		if after := withoutTestRules(links(t, lab.Client)); after != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
		}
		if pids, err := lab.Client.Pids(); err != nil || len(pids) > 0 {
			t.Errorf("processes left: %v, %v", pids, err)
		}
		if lines := errorLines(gw.Log()); len(lines) > 0 {
			t.Errorf("error lines after an orderly end: %q", lines)
		}
	})
}

// withoutTestRules removes the rules that RouteIntoDevice made.
func withoutTestRules(s string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(s, "\n"), func(l string) bool {
		return strings.HasPrefix(l, "1000:") || strings.HasPrefix(l, "1001:")
	})
	return strings.Join(lines, "")
}

// TestTermIdle stops a gateway that does nothing: at once.
func TestTermIdle(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	if err := gw.Stop(bounded(time.Second)); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if code := gw.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestTermTwice cuts the drain short.
func TestTermTwice(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"shutdown_timeout": "1m"})
	f := families()[0]
	c := dial(t, lab.Client, serve(t, lab.Server, f.server, 0, echo))
	if err := exchange(c); err != nil {
		t.Fatal(err)
	}
	if err := gw.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, soon, func() error {
		if !strings.Contains(gw.Log(), "draining") {
			return errors.New("not draining")
		}
		return nil
	})
	if err := gw.Stop(bounded(time.Second)); err != nil || gw.ExitCode() != 0 {
		t.Errorf("after the second SIGTERM: %v, exit code %d", err, gw.ExitCode())
	}
	if err := exchange(c); err == nil {
		t.Error("the connection goes on")
	}
}

// TestKill kills the gateway under load and starts another: no device is left in
// its way, and clients of the first learn that their connections are gone.
func TestKill(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		lab := newLab(t)
		before := links(t, lab.Client)
		gw := start(t, lab, "direct.yaml", nil)
		load(t, lab, f)
		to := serve(t, lab.Server, f.server, 0, echo)
		c := dial(t, lab.Client, to)
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
		gw.Kill()
		eventually(t, soon, func() error {
			if after := withoutTestRules(links(t, lab.Client)); after != before {
				return fmt.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
			}
			return nil
		})
		start(t, lab, "direct.yaml", nil)
		if err := exchange(dial(t, lab.Client, to)); err != nil {
			t.Fatalf("after the restart: %v", err)
		}
		if err := exchange(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection from before: %v, want ECONNRESET", err)
		}
	})
}

// TestManyRestarts starts and stops the gateway often enough that what it leaves
// each time would be in its way.
func TestManyRestarts(t *testing.T) {
	lab := newLab(t)
	f := families()[0]
	to := serve(t, lab.Server, f.server, 0, echo)
	for range 10 {
		gw := start(t, lab, "direct.yaml", nil)
		if err := exchange(dial(t, lab.Client, netip.AddrPortFrom(f.server, to.Port()))); err != nil {
			t.Fatal(err)
		}
		if err := gw.Stop(long); err != nil {
			t.Fatal(err)
		}
	}
}
