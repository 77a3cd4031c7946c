package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// giveUp bounds what a test waits for; it is never reached.
const giveUp = 20 * time.Second

// running is a server whose Run was called.
type running struct {
	*Server
	log    *observer.ObservedLogs
	cancel context.CancelFunc
	ended  chan error
}

// run starts a server and ends it with the test.
func run(t *testing.T, o Options, d Deps) *running {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	core, log := observer.New(zap.DebugLevel)
	d.Log = zap.New(core)
	s, err := New(o, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Server: s, log: log, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		cancel()
	})
	return r
}

// wait returns what Run returned.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(giveUp):
		t.Fatal("Run does not return")
		return nil
	}
}

// reply is a response with its body read.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends one request on a connection of its own.
func (r *running) ask(t *testing.T, method, path string, header http.Header) reply {
	t.Helper()
	addr := r.Addr()
	client := http.Client{
		Timeout: giveUp,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
			},
		},
	}
	host := "localhost"
	if addr.Network() == "tcp" {
		host = addr.String()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

func TestPages(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "tungate_x 1\n") })
	var missing error
	r := run(t, Options{}, Deps{Metrics: metrics, Ready: func() error { return missing }})
	for _, test := range []struct {
		path    string
		missing error
		status  int
		body    string
	}{
		{"/healthz", nil, 200, "ok\n"},
		{"/healthz", errors.New("irrelevant"), 200, "ok\n"},
		{"/readyz", nil, 200, "ready\n"},
		{"/readyz", errors.New("the device tun0 is gone"), 503, "not ready: the device tun0 is gone\n"},
		{"/metrics", nil, 200, "tungate_x 1\n"},
		{"/metrics/x", nil, 404, "404 page not found\n"},
		{"/debug/pprof/", nil, 404, "404 page not found\n"},
		{"/nothing", nil, 404, "404 page not found\n"},
	} {
		missing = test.missing // the handler reads it only during the request that follows
		got := r.ask(t, http.MethodGet, test.path, nil)
		if got.status != test.status || got.body != test.body {
			t.Errorf("GET %s = %d %q, want %d %q", test.path, got.status, got.body, test.status, test.body)
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("GET %s lacks the headers of every answer: %v", test.path, got.header)
		}
	}
}

func TestIndexLinksWhatThereIs(t *testing.T) {
	nothing := http.NotFoundHandler()
	for _, test := range []struct {
		o     Options
		d     Deps
		paths []string
	}{
		{Options{}, Deps{}, []string{"/healthz", "/readyz"}},
		{Options{PProf: true}, Deps{Metrics: nothing}, []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"}},
	} {
		got := run(t, test.o, test.d).ask(t, http.MethodGet, "/", nil)
		for _, p := range test.paths {
			if !strings.Contains(got.body, `href="`+p+`"`) {
				t.Errorf("the index does not link %s:\n%s", p, got.body)
			}
		}
		if n := strings.Count(got.body, "href="); n != len(test.paths) {
			t.Errorf("the index has %d links, not %d:\n%s", n, len(test.paths), got.body)
		}
	}
}

func TestGuard(t *testing.T) {
	r := run(t, Options{PProf: true}, Deps{})
	port := r.Addr().(*net.TCPAddr).Port
	for _, test := range []struct {
		name, method, path string
		header             http.Header
		status             int
	}{
		{"the address itself", "GET", "/healthz", nil, 200},
		{"HEAD", "HEAD", "/healthz", nil, 200},
		{"localhost", "GET", "/healthz", host("localhost"), 200},
		{"localhost behind a forwarded port", "GET", "/healthz", host("LocalHost:8080"), 200},
		{"another loopback address", "GET", "/healthz", host("127.0.0.2"), 200},
		{"IPv6 loopback", "GET", "/healthz", host("[::1]:9090"), 200},
		{"IPv6 loopback without a port", "GET", "/healthz", host("[::1]"), 200},
		{"a name", "GET", "/healthz", host("rebound.example"), 403},
		{"a name with our port", "GET", "/metrics", host(fmt.Sprintf("rebound.example:%d", port)), 403},
		{"a name that begins like ours", "GET", "/healthz", host("127.0.0.1.rebound.example"), 403},
		{"a name that ends like ours", "GET", "/healthz", host("x.localhost"), 403},
		{"an address that is no loopback", "GET", "/healthz", host("192.0.2.1"), 403},
		{"an address elsewhere in IPv6 form", "GET", "/healthz", host("[::ffff:192.0.2.1]:80"), 403},
		{"POST", "POST", "/readyz", nil, 405},
		{"DELETE of nothing", "DELETE", "/nothing", nil, 405},
		{"OPTIONS", "OPTIONS", "/", nil, 405},
		{"POST to pprof's symbols", "POST", "/debug/pprof/symbol", nil, 405},
		{"profiles for this site", "GET", "/debug/pprof/", http.Header{"Sec-Fetch-Site": {"none"}}, 200},
		{"profiles for another site", "GET", "/debug/pprof/profile?seconds=1", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"health for another site", "GET", "/healthz", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 200},
		{"headers too large", "GET", "/healthz", http.Header{"X": {strings.Repeat("x", 2*maxHeaderBytes)}}, 431},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := r.ask(t, test.method, test.path, test.header)
			if got.status != test.status {
				t.Errorf("%d %q, want %d", got.status, got.body, test.status)
			}
			if test.status == 405 && got.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow: %q", got.header.Get("Allow"))
			}
		})
	}
	const want = `the Host header "rebound.example" is refused; ask by 127.0.0.1 or localhost (a name could be pointed here by a web page)` + "\n"
	if got := r.ask(t, "GET", "/", host("rebound.example")); got.body != want {
		t.Errorf("the sentence is %q, want %q", got.body, want)
	}
}

func host(h string) http.Header { return http.Header{"Host": {h}} }

// TestNoHost is HTTP/1.0 without a Host, which no browser sends but no peer of
// ours either.
func TestNoHost(t *testing.T) {
	r := run(t, Options{}, Deps{})
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestExposed listens on all addresses, which is said in the log, and takes any
// address literal but still no name.
func TestExposed(t *testing.T) {
	r := run(t, Options{Listen: "0.0.0.0:0"}, Deps{})
	for h, want := range map[string]int{"192.0.2.1:9090": 200, "[2001:db8::1]": 200, "localhost": 200, "gateway.example:9090": 403} {
		if got := r.ask(t, "GET", "/healthz", host(h)); got.status != want {
			t.Errorf("Host %s: %d, want %d", h, got.status, want)
		}
	}
	warnings := r.log.FilterLevelExact(zap.WarnLevel).All()
	if len(warnings) != 1 || !strings.Contains(warnings[0].Message, "open to other hosts") {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestLoopbackDoesNotWarn(t *testing.T) {
	r := run(t, Options{}, Deps{})
	r.ask(t, "GET", "/healthz", nil)
	if n := r.log.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
		t.Errorf("%d warnings", n)
	}
}

// TestProfiles takes the profiles that do not sample for a time.
func TestProfiles(t *testing.T) {
	r := run(t, Options{PProf: true}, Deps{})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
		if got := r.ask(t, "GET", path, nil); got.status != http.StatusOK || got.body == "" {
			t.Errorf("%s: %d, %d bytes", path, got.status, len(got.body))
		}
	}
}

func TestRunEndsWithContext(t *testing.T) {
	r := run(t, Options{}, Deps{})
	r.ask(t, "GET", "/healthz", nil)
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := net.Dial("tcp", r.Addr().String()); err == nil {
		t.Error("the port is still open after Run")
	}
	if err := r.Run(t.Context()); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("a second Run: %v", err)
	}
}

// TestCloseCutsWhatHangs has a request in progress, an idle connection and one
// that sent half a request; Close ends all three.
func TestCloseCutsWhatHangs(t *testing.T) {
	entered := make(chan struct{})
	left := make(chan struct{})
	hang := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		close(entered)
		<-req.Context().Done()
		close(left)
	})
	r := run(t, Options{}, Deps{Metrics: hang})
	for _, request := range []string{"", "GET / HT", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
		c, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	<-entered
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	select {
	case <-left:
	default:
		t.Error("Close returned before the handler had ended")
	}
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// TestRequestInProgressFinishes is the gentle end: the answer still arrives.
func TestRequestInProgressFinishes(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-proceed
		fmt.Fprint(w, "done")
	})
	r := run(t, Options{}, Deps{Metrics: slow})
	got := make(chan reply, 1)
	go func() { got <- r.ask(t, "GET", "/metrics", nil) }()
	<-entered
	r.cancel()
	close(proceed)
	if reply := <-got; reply.body != "done" {
		t.Errorf("the request in progress got %d %q", reply.status, reply.body)
	}
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	s, err := New(Options{Listen: "127.0.0.1:0"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := s.Run(t.Context()); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	again, err := New(Options{Listen: s.Addr().String()}, Deps{})
	if err != nil {
		t.Fatalf("the port is not free after Close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseRacesRun calls them at the same time; whichever is first, both end.
func TestCloseRacesRun(t *testing.T) {
	for range 50 {
		s, err := New(Options{Listen: "127.0.0.1:0"}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestOff(t *testing.T) {
	r := run(t, Options{Listen: Off}, Deps{})
	if r.Addr() != nil {
		t.Errorf("an address: %v", r.Addr())
	}
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// failingListener reports an error that no retry mends.
type failingListener struct{ net.Listener }

var errBroken = errors.New("broken")

func (failingListener) Accept() (net.Conn, error) { return nil, errBroken }

func TestRunReportsAFailedListener(t *testing.T) {
	s, err := New(Options{Listen: "127.0.0.1:0"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.listener = failingListener{s.listener}
	if err := s.Run(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("Run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
