package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// Deadlines. Whatever is waited for takes milliseconds; these are for a machine
// that is busy with something else, and for a build with the race detector.
const (
	soon = 5 * time.Second  // a round trip, a state
	long = 30 * time.Second // a transfer
)

// family is what differs between the IP versions.
type family struct {
	name   string
	server netip.Addr // in the server's namespace
	silent netip.Addr // drops whatever it gets
	tun    netip.Addr // the client's own, on the device
	host   netip.Addr // the client's own, on the veth
	flag   string     // of ip, curl and ping
}

func families() []family {
	return []family{
		{"IPv4", testutil.ServerV4, testutil.SilentV4, testutil.TunV4, testutil.ClientV4, "-4"},
		{"IPv6", testutil.ServerV6, testutil.SilentV6, testutil.TunV6, testutil.ClientV6, "-6"},
	}
}

// eachFamily runs f for both IP versions.
func eachFamily(t *testing.T, f func(t *testing.T, fam family)) {
	t.Helper()
	for _, fam := range families() {
		t.Run(fam.name, func(t *testing.T) { f(t, fam) })
	}
}

// fields sets fields of a config, each named by its path with dots.
type fields = map[string]any

// newLab makes a lab and removes it at the end, with what still runs in it.
func newLab(t *testing.T) *testutil.Lab {
	t.Helper()
	lab, err := testutil.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	if overTAP() {
		lab.ViaV4, lab.ViaV6 = netip.MustParseAddr(lanV4), netip.MustParseAddr(lanV6)
	}
	t.Cleanup(func() {
		for _, n := range []*testutil.Namespace{lab.Client, lab.Server} {
			if left, err := n.KillAll(); err != nil || left != "" {
				t.Errorf("left in %s: %s%v", n.Name, left, err)
			}
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// config returns the path of an example with fields set.
func config(t *testing.T, example string, set fields) string {
	t.Helper()
	all, err := deviceFields(os.Getenv(deviceEnv))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, set)
	path, err := testutil.EditConfig(filepath.Join(examples, example), t.TempDir(), all)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// running is a gateway under test.
type running struct {
	*testutil.Gateway
	lab *testutil.Lab
	t   *testing.T
}

// start launches the gateway and routes the client's traffic into its device.
func start(t *testing.T, lab *testutil.Lab, example string, set fields) *running {
	t.Helper()
	r := launch(t, lab, example, set)
	must(t, lab.RouteIntoDevice())
	return r
}

// launch runs the gateway with an example's config, and at the end of the test
// looks that it has behaved.
func launch(t *testing.T, lab *testutil.Lab, example string, set fields) *running {
	t.Helper()
	patient := fields{"shutdown_timeout": "1s"} // for what a failed test leaves open
	maps.Copy(patient, set)
	g, err := testutil.StartGateway(lab.Client, gateway, config(t, example, patient))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{g, lab, t}
	t.Cleanup(r.finish)
	return r
}

// finish ends the gateway, if the test did not, and judges it.
func (r *running) finish() {
	r.t.Helper()
	noConntrack(r.t, r.lab.Client)
	if r.Alive() {
		r.explain()
		if err := r.Stop(long); err != nil {
			r.t.Errorf("gateway after SIGTERM: %v", err)
		}
	}
	judgeLog(r.t, r.Log())
	if r.t.Failed() {
		r.t.Logf("the gateway printed:\n%s", tail(r.Log()))
	}
}

// explain shows what a failed test has left: the gateway's counters, and what the
// client's kernel knows of its connections.
func (r *running) explain() {
	r.t.Helper()
	if !r.t.Failed() {
		return
	}
	if all, err := r.Metrics(); err == nil {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(name, "tungate_") && all[name] != 0 {
				fmt.Fprintf(&b, "%s %v\n", name, all[name])
			}
		}
		r.t.Logf("the gateway's metrics:\n%s", b.String())
	}
	if out, err := r.lab.Client.Output("ss", "-tnmi"); err == nil {
		r.t.Logf("the client's connections:\n%s", out)
	}
}

// judgeLog fails for what a gateway never prints.
func judgeLog(t *testing.T, log string) {
	t.Helper()
	for _, never := range []string{"panic:", "DATA RACE", "fatal error:", "goroutine 1 ["} {
		if strings.Contains(log, never) {
			t.Errorf("the gateway printed %q", never)
		}
	}
}

// tail is the end of a log, as much as a person reads.
func tail(s string) string {
	const limit = 8 << 10
	if len(s) > limit {
		return "...\n" + s[len(s)-limit:]
	}
	return s
}

// noConntrack fails when the kernel tracks a connection in the namespace.
func noConntrack(t *testing.T, n *testutil.Namespace) {
	t.Helper()
	count, err := n.ReadSysctl("netfilter/nf_conntrack_count")
	if errors.Is(err, os.ErrNotExist) {
		return // the kernel tracks nothing at all
	}
	if err != nil || count != "0" {
		t.Errorf("nf_conntrack_count is %q (%v), want 0", count, err)
	}
}

// metrics scrapes the gateway.
func (r *running) metrics(t *testing.T) testutil.Series {
	t.Helper()
	s, err := r.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until cond returns nil.
func eventually(t *testing.T, within time.Duration, cond func() error) {
	t.Helper()
	if err := testutil.Poll(within, cond); err != nil {
		t.Fatal(err)
	}
}

// counts polls until a metric, summed over the series with these labels, satisfies
// ok, and returns its value.
func (r *running) counts(t *testing.T, ok func(float64) bool, name string, labels ...string) float64 {
	t.Helper()
	var v float64
	eventually(t, soon, func() error {
		s, err := r.Metrics()
		if err != nil {
			return err
		}
		if v = s.Sum(name, labels...); !ok(v) {
			return fmt.Errorf("%s%v is %v", name, labels, v)
		}
		return nil
	})
	return v
}

func atLeast(n float64) func(float64) bool { return func(v float64) bool { return v >= n } }
func exactly(n float64) func(float64) bool { return func(v float64) bool { return v == n } }

// serve listens for TCP in a namespace and serves each connection by f until the
// test ends. port 0 is any.
func serve(t *testing.T, n *testutil.Namespace, addr netip.Addr, port uint16, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := n.Listen(netip.AddrPortFrom(addr, port).String())
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns []net.Conn
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what comes until the end of it.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// hold reads nothing and keeps the connection until the test ends it.
func hold(done <-chan struct{}) func(*net.TCPConn) {
	return func(*net.TCPConn) { <-done }
}

// dial connects from the client's namespace, with a deadline on everything that
// happens on the connection, and closes it at the end of the test.
func dial(t *testing.T, n *testutil.Namespace, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := n.Dial("tcp", to.String(), soon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	deadline(t, c, long)
	return c.(*net.TCPConn)
}

func deadline(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}

// exchange sends a few bytes and wants them back.
func exchange(c net.Conn) error {
	msg := []byte("tungate")
	if _, err := c.Write(msg); err != nil {
		return err
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, msg) {
		return fmt.Errorf("got %q back for %q", got, msg)
	}
	return nil
}

// pattern is an endless stream that the seed determines.
func pattern(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

// send writes n bytes of the seed's pattern.
func send(w io.Writer, seed uint64, n int64) error {
	sent, err := io.Copy(w, io.LimitReader(pattern(seed), n))
	if err != nil {
		err = fmt.Errorf("after sending %d of %d bytes: %w", sent, n, err)
	}
	return err
}

// receive reads n bytes and compares each with the seed's pattern.
func receive(r io.Reader, seed uint64, n int64) error {
	want := pattern(seed)
	got, expected := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < n; {
		k, err := r.Read(got[:min(int64(len(got)), n-at)])
		if _, rerr := io.ReadFull(want, expected[:k]); rerr != nil {
			return rerr
		}
		if !bytes.Equal(got[:k], expected[:k]) {
			return fmt.Errorf("bytes differ between %d and %d", at, at+int64(k))
		}
		at += int64(k)
		if err != nil && at < n {
			return fmt.Errorf("after receiving %d of %d bytes: %w", at, n, err)
		}
	}
	return nil
}

// ended wants the end of the stream, and nothing before it.
func ended(r io.Reader) error {
	k, err := r.Read(make([]byte, 1))
	if k != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %d bytes and %w where the end should be", k, err)
	}
	return nil
}

// together runs f n times at once and joins the first few errors.
func together(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > 0 {
		t.Fatalf("%d of %d failed: %v", len(errs), n, errors.Join(errs[:min(5, len(errs))]...))
	}
}

// within runs f and fails the test when it takes longer.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > d {
		t.Errorf("%s took %v, want at most %v", what, took, d)
	}
}

// result waits for a goroutine's error.
func result(t *testing.T, c <-chan error, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		t.Fatalf("not done after %v", d)
		return nil
	}
}

// background runs f and hands out its error.
func background(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}
