package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/gateway"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/metrics"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

// long is a shutdown timeout that no test waits for.
func long(c *config.Config) { c.ShutdownTimeout = time.Hour }

// TestDrain: an open connection may finish after the end was asked for, and a new
// one is refused.
func TestDrain(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		j := join(t, f, options{relay: relay, config: long})
		if err := j.g.Ready(); err != nil {
			t.Errorf("not ready while serving: %v", err)
		}
		j.cancel()
		wait.Until(t, "the drain", func() bool { return j.g.Ready() != nil })
		if err := j.g.Ready(); !strings.Contains(err.Error(), "stopping") {
			t.Errorf("draining, it says %v", err)
		}
		if _, err := j.client.dial(j.server.addr); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a new connection during the drain: %v, want ECONNREFUSED", err)
		}
		exchange(t, j.down, j.up, bytesOf(1, 1<<20), bytesOf(2, 1<<20))
		if err := j.ended(); err != nil {
			t.Errorf("Run returned %v", err)
		}
		if _, p := j.g.Stats(); p.TCP.Closed[flow.ReasonDone] != 1 {
			t.Errorf("counted %+v", p.TCP)
		}
		if n := j.dev.closed.Load(); n != 1 {
			t.Errorf("the device was closed %d times", n)
		}
	})
}

// TestDrainHandshake: a connection that the client has and the gateway is about to
// have is one that may finish.
func TestDrainHandshake(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		j := dialled(t, f, options{relay: relay, config: long})
		j.cancel()
		exchange(t, j.down, j.up, []byte("up"), []byte("down"))
		if err := j.ended(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestDrainFlushes: what the upstream has finished sending is not lost because the
// client still reads it.
func TestDrainFlushes(t *testing.T) {
	const window = 8 << 10
	answer := bytesOf(3, 3*window) // less than the stack's send buffer is at first
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		r := newRig(t, f, options{relay: relay, config: long, forward: s.forwardTo()})
		r.client.setReceiveBuffer(window)
		down := r.client.mustDial(s.addr)
		up := s.accept()
		if err := down.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		receive(t, "the upstream", up, nil)
		send(t, up, answer)
		wait.Until(t, "the relay's end", func() bool { s, _ := r.g.Stats(); return s.Established == 0 })
		r.cancel()
		wait.Until(t, "the drain", func() bool { return r.g.Ready() != nil })
		receive(t, "the client", down, answer)
		if err := r.ended(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestDrainEnds: what is still open at the deadline, or when the drain is cut, is
// reset on both sides.
func TestDrainEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		config func(*config.Config)
		cut    bool
	}{
		"deadline": {func(c *config.Config) { c.ShutdownTimeout = 30 * time.Millisecond }, false},
		"cut":      {long, true},
	} {
		t.Run(name, func(t *testing.T) {
			forFamilies(t, func(t *testing.T, f family, relay string) {
				j := join(t, f, options{relay: relay, config: tc.config})
				j.cancel()
				if tc.cut {
					close(j.cut)
				}
				if err := j.ended(); err != nil {
					t.Errorf("Run returned %v", err)
				}
				wantReset(t, "the client", j.down)
				wantReset(t, "the upstream", j.up)
				if s, p := j.g.Stats(); s.Established != 0 || p.TCP.Open != 0 || p.TCP.Closed[flow.ReasonShutdown] != 1 {
					t.Errorf("%d established; counted %+v", s.Established, p.TCP)
				}
			})
		})
	}
}

// TestEndWhileDialling: attempts that wait for an upstream end with the gateway.
func TestEndWhileDialling(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		silent := netip.AddrPortFrom(f.service, 81)
		r := newRig(t, f, options{relay: relay, config: long, forward: map[netip.AddrPort]netip.AddrPort{silent: fullListener(t, f.loopback)}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error, 1)
		go func() { _, err := r.client.dialContext(ctx, silent); failed <- err }()
		wait.Until(t, "the attempt", func() bool { s, _ := r.g.Stats(); return s.Flows.HalfOpen == 1 })
		r.cancel()
		if err := r.ended(); err != nil {
			t.Errorf("Run returned %v", err)
		}
		cancel()
		if err := wait.For(t, "the client's dial", failed); err == nil {
			t.Error("the client is connected")
		}
	})
}

// TestDeviceGone: a deleted device ends the gateway with an error that says so,
// and the connections it carried.
func TestDeviceGone(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		j := join(t, f, options{relay: relay, config: long})
		start := time.Now()
		j.dev.Delete()
		if err := j.ended(); !errors.Is(err, tundev.ErrGone) || !strings.Contains(err.Error(), "mem0") {
			t.Errorf("Run returned %v, want ErrGone and the device's name", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
		wantReset(t, "the upstream", j.up)
		if n := j.dev.closed.Load(); n == 0 {
			t.Error("the device was not closed")
		}
	})
}

// TestNewFails: whatever is refused, nothing stays behind, and the device that was
// handed over is closed.
func TestNewFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tc := range map[string]struct {
		change func(*config.Config)
		want   string
	}{
		"admin address taken": {func(c *config.Config) { c.Admin.Listen = taken.Addr().String() }, taken.Addr().String()},
		"admin socket":        {func(c *config.Config) { c.Admin.Listen = "unix:/nowhere/at/all" }, "/nowhere/at/all"},
		"interface":           {func(c *config.Config) { c.Proxy.Interface = "tungate-none" }, "tungate-none"},
		"interface, simple":   {func(c *config.Config) { c.Proxy.Interface = "tungate-none"; c.Proxy.Relay = "simple" }, "tungate-none"},
		"stack":               {func(c *config.Config) { c.Stack.TCP.CongestionControl = "bbr" }, "bbr"},
	} {
		t.Run(name, func(t *testing.T) {
			before, goroutines := wait.Descriptors(), runtime.NumGoroutine()
			dev := &device{Device: tuntest.New(tuntest.Options{})}
			cfg := config.Default()
			cfg.Admin.Listen = "127.0.0.1:0"
			tc.change(cfg)
			g, err := gateway.New(t.Context(), cfg, gateway.Deps{Log: zap.NewNop(), Device: dev})
			if err == nil || g != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New returned %v, %v; want an error about %q", g, err, tc.want)
			}
			if dev.closed.Load() == 0 {
				t.Error("the device was left open")
			}
			wait.Until(t, "all is released", func() bool { return wait.Descriptors() == before && runtime.NumGoroutine() <= goroutines })
		})
	}
}

// TestNewMakesNoDevice: a device that cannot be made is an error, not a crash.
func TestNewMakesNoDevice(t *testing.T) {
	before := wait.Descriptors()
	cfg := config.Default()
	cfg.Admin.Listen = "off"
	cfg.Device.Name = "a-name-too-long-for-it"
	if _, err := gateway.New(t.Context(), cfg, gateway.Deps{Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), "a-name-too-long-for-it") {
		t.Errorf("New returned %v", err)
	}
	if left := wait.Descriptors() - before; left != 0 {
		t.Errorf("%d descriptors left", left)
	}
}

// TestIdleCost: an open connection and a UDP session have no goroutine and one
// descriptor.
func TestIdleCost(t *testing.T) {
	const flows = 40
	f := families[0]
	s, u := listen(t, f), listenUDP(t, f)
	forward := s.forwardTo()
	forward[u.addr] = u.at
	r := newRig(t, f, options{forward: forward})
	measure := func() (int, int) { return runtime.NumGoroutine(), wait.Descriptors() }
	// quiet waits for what earlier tests and the first connection leave to end.
	quiet := func() (int, int) {
		same, g, n := 0, 0, 0
		wait.Until(t, "all is quiet", func() bool {
			g2, n2 := measure()
			if same++; g2 != g || n2 != n {
				same, g, n = 0, g2, n2
			}
			return same >= 100
		})
		return g, n
	}
	_ = r.client.mustDial(s.addr)
	s.accept()
	goroutines, files := quiet()
	for range flows {
		down := r.client.mustDial(s.addr)
		up := s.accept()
		if _, err := down.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(up, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "every connection is the loop's", func() bool {
		g, n := measure()
		return g <= goroutines && n == files+2*flows // the gateway's and the server's
	})
	goroutines, files = quiet()
	for range flows {
		if _, err := r.client.dialUDP(u.addr).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(u, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "a descriptor a session", func() bool {
		g, n := measure()
		return g <= goroutines && n == files+flows
	})
}

// TestStatsBeforeRun: metrics may be asked for at any time.
func TestStatsBeforeRun(t *testing.T) {
	cfg := config.Default()
	cfg.Admin.Listen = "off"
	dev := &device{Device: tuntest.New(tuntest.Options{})}
	g, err := gateway.New(t.Context(), cfg, gateway.Deps{Log: zap.NewNop(), Device: dev, Build: metrics.Build{}})
	if err != nil {
		t.Fatal(err)
	}
	if s, p := g.Stats(); s.Established != 0 || p.TCP.Open != 0 {
		t.Errorf("%+v, %+v", s, p)
	}
	if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("before Run it says %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Run(ctx, nil); err != nil {
		t.Error(err)
	}
	_ = func() (netstack.Stats, proxy.Stats) { return g.Stats() }
}

// TestPinned serves with its loop on one processor.
func TestPinned(t *testing.T) {
	j := join(t, families[0], options{config: func(c *config.Config) { c.Stack.PinReaders = true }})
	exchange(t, j.down, j.up, bytesOf(1, 1<<20), bytesOf(2, 1<<20))
}

// TestMemoryShort refuses new connections while memory is short, says so once, and
// leaves open ones alone.
func TestMemoryShort(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off") // which this test's would make the collector run without end
	j := join(t, families[0], options{config: func(c *config.Config) { c.MemoryLimit = 1 }})
	var err error
	wait.Until(t, "a refusal", func() bool {
		var c *conn
		if c, err = j.client.dial(j.server.addr); err == nil {
			c.reset()
			_ = j.server.accept().Close()
		}
		return err != nil
	})
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want ECONNREFUSED", err)
	}
	exchange(t, j.down, j.up, bytesOf(1, 1<<20), bytesOf(2, 1<<20))
}

// TestMemoryStaysShort resets who is idle while memory stays short, both ends, and
// nobody who is not; says so with a line at each end, and takes new connections
// afterwards.
func TestMemoryStaysShort(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off")
	debug.FreeOSMemory()
	limit := int64(used(t)*2 + 64<<20)
	core, lines := observer.New(zap.InfoLevel)
	j := join(t, families[0], options{config: func(c *config.Config) { c.MemoryLimit = limit }, log: zap.New(core)})
	down := j.client.mustDial(j.server.addr)
	up := j.server.accept()
	chatter := func() {
		b := []byte("x")
		if _, err := down.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(up, b); err != nil {
			t.Fatal(err)
		}
	}
	chatter()

	ballast := bytes.Repeat([]byte{1}, int(limit))
	resets := make(chan error, 2)
	for _, c := range []io.Reader{j.down, j.up} {
		go func() {
			_, err := io.Copy(io.Discard, c)
			resets <- err
		}()
	}
	often := time.NewTicker(20 * time.Millisecond)
	defer often.Stop()
	for ended := 0; ended < 2; {
		select {
		case err := <-resets:
			if ended++; err == nil || !strings.Contains(err.Error(), "reset by peer") {
				t.Errorf("an idle connection ended by %v, want a reset", err)
			}
		case <-often.C:
			chatter()
		}
	}
	s, _ := j.g.Stats()
	if n := s.Flows.Counters[minisock.Shed]; n != 1 {
		t.Errorf("%d reset, want 1", n)
	}
	runtime.KeepAlive(ballast) // until here
	wait.Until(t, "a new connection", func() bool {
		debug.FreeOSMemory()
		c, err := j.client.dial(j.server.addr)
		if err == nil {
			c.reset()
		}
		return err == nil
	})
	chatter()
	for _, message := range []string{"new connections are refused", "connections idle for longest are reset", "memory is available again"} {
		if n := lines.FilterMessageSnippet(message).Len(); n != 1 {
			t.Errorf("%d lines of %q: %v", n, message, lines.All())
		}
	}
	if last := lines.FilterMessageSnippet("available again").All(); len(last) == 1 && last[0].ContextMap()["reset"] != uint64(1) {
		t.Errorf("at the end it says %v", last[0].ContextMap())
	}
}

// used is what Go holds of the system's memory, in bytes.
func used(t *testing.T) uint64 {
	t.Helper()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}
