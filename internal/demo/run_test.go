package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/gateway"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

// startGateway serves the device by the gateway itself.
func startGateway(ctx context.Context, f *os.File, mtu tundev.MTU, o proxy.Options) (func() error, error) {
	dev, err := tundev.Attach(f, mtu, tundev.Offload{})
	if err != nil {
		return nil, err
	}
	cfg := config.Default()
	cfg.Proxy = o
	cfg.ShutdownTimeout = time.Millisecond // the client's connections are over
	g, err := gateway.New(ctx, cfg, gateway.Deps{Log: zap.NewNop(), Device: dev})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, nil) }()
	return func() error { stop(); return <-done }, nil
}

// TestRun runs the demo with a tenth of its load through a real gateway.
func TestRun(t *testing.T) {
	files := countFiles(t)
	var out bytes.Buffer
	err := run(t.Context(), &out, Deps{Start: startGateway}, load{
		Connections: 100, AtOnce: 50, Idle: 100, RoundTrips: 200,
		Patience: 10 * time.Second, Bulk: 200 * time.Millisecond,
	})
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`the device tun0 \(offloads: checksum tso4 tso6[a-z ]*\)`,
		`IPv4 +IPv6\n`,
		`connections, none failed +100 +100\n`,
		`bulk up +\d+\.\d Gbit/s +\d+\.\d Gbit/s\n`,
		`bulk down +\d+\.\d Gbit/s +\d+\.\d Gbit/s\n`,
		`bytes checked: \d+\.\d [MG]B, none wrong\n`,
		`gateway exec -- curl`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("nothing like %q", want)
		}
	}
	if bytes.ContainsAny(out.Bytes(), "\x1b\r") {
		t.Error("control codes, and this is no terminal")
	}
	if n := countFiles(t); n != files {
		t.Errorf("%d files are open, %d were before", n, files)
	}
}

// TestRunNoGateway: a gateway that does not start is the one thing told, and
// nothing is left behind (goleak looks for what waits for the processes).
func TestRunNoGateway(t *testing.T) {
	files := countFiles(t)
	refuse := func(context.Context, *os.File, tundev.MTU, proxy.Options) (func() error, error) {
		return nil, errors.New("no gateway today: come back tomorrow")
	}
	err := Run(t.Context(), &bytes.Buffer{}, Deps{Start: refuse})
	if err == nil || err.Error() != "the demo failed: no gateway today: come back tomorrow" {
		t.Errorf("got %v", err)
	}
	if n := countFiles(t); n != files {
		t.Errorf("%d files are open, %d were before", n, files)
	}
}

// TestRunUnserved: a device that nobody reads ends the demo by the caller's limit.
func TestRunUnserved(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("enough of that"))
	defer cancel()
	deaf := func(context.Context, *os.File, tundev.MTU, proxy.Options) (func() error, error) {
		return func() error { return nil }, nil
	}
	err := Run(ctx, &bytes.Buffer{}, Deps{Start: deaf})
	if err == nil || !strings.HasPrefix(err.Error(), "the demo failed: enough of that") {
		t.Errorf("got %v", err)
	}
}

func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			n++
		}
	}
	return n
}
