package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

// sources of a gateway with two queues that has counted nothing.
func sources() Sources {
	return Sources{
		Stack:  func() netstack.Stats { return netstack.Stats{Link: link.Stats{Queues: make([]link.QueueStats, 2)}} },
		Proxy:  func() proxy.Stats { return proxy.Stats{} },
		Device: func() Device { return Device{} },
		Build:  Build{Version: "v1.2.3", Revision: "abc", Go: "go1.99"},
	}
}

// ours gathers the families of this package, by name.
func ours(t testing.TB, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*dto.MetricFamily{}
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "tungate_") {
			found[f.GetName()] = f
		}
	}
	return found
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

// fill sets every number below v to one of its own, from *next on, and every bool
// to true. It reports the path of each number.
func fill(v reflect.Value, path string, next *uint64, paths map[float64]string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), path+"."+v.Type().Field(i).Name, next, paths)
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), fmt.Sprintf("%s[%d]", path, i), next, paths)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			item := reflect.New(v.Type().Elem()).Elem()
			fill(item, fmt.Sprintf("%s[%v]", path, k), next, paths)
			v.SetMapIndex(k, item)
		}
	case reflect.Int, reflect.Int64:
		paths[float64(*next)] = path
		v.SetInt(int64(*next))
		*next++
	case reflect.Uint32, reflect.Uint64:
		paths[float64(*next)] = path
		v.SetUint(*next)
		*next++
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("no rule for " + path)
	}
}

// TestEveryFieldIsShown gives every field of every snapshot a number of its own
// and looks for exactly one sample with it.
func TestEveryFieldIsShown(t *testing.T) {
	stack := netstack.Stats{Link: link.Stats{Queues: make([]link.QueueStats, 3)}}
	var served proxy.Stats
	for _, f := range []*proxy.FlowStats{&served.TCP, &served.UDP} {
		f.Closed = map[flow.CloseReason]uint64{}
		for _, r := range flow.CloseReasons() {
			f.Closed[r] = 0
		}
	}
	var device Device
	next, paths := uint64(1000), map[float64]string{}
	fill(reflect.ValueOf(&stack).Elem(), "netstack.Stats", &next, paths)
	fill(reflect.ValueOf(&served).Elem(), "proxy.Stats", &next, paths)
	fill(reflect.ValueOf(&device).Elem(), "Device", &next, paths)

	r := New(Sources{
		Stack:  func() netstack.Stats { return stack },
		Proxy:  func() proxy.Stats { return served },
		Device: func() Device { return device },
	})
	shown := map[float64]string{}
	for name, f := range ours(t, r.reg) {
		for _, m := range f.Metric {
			if v := value(m); v >= 1000 {
				if other, ok := shown[v]; ok {
					t.Errorf("%s is shown twice, as %s and %s", paths[v], other, name)
				}
				shown[v] = name
			}
		}
	}
	elsewhere := []string{
		"netstack.Stats.Flows.States[0]", "netstack.Stats.Flows.Counters[0]", // no state, no cause
	}
	for v, path := range paths {
		if shown[v] == "" && !slices.Contains(elsewhere, path) {
			t.Errorf("no metric shows %s", path)
		}
	}
	for _, name := range []string{"tungate_device_up", "tungate_device_offload_enabled"} {
		for _, m := range ours(t, r.reg)[name].Metric {
			if value(m) != 1 {
				t.Errorf("%s is not 1 for true", m)
			}
		}
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(sources()).reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestLabelsAreBounded holds every label against the values it may have.
func TestLabelsAreBounded(t *testing.T) {
	var reasons, results, events, states []string
	for r := range link.NumDropReasons {
		reasons = append(reasons, r.String())
	}
	for r := range lan.NumDropReasons {
		reasons = append(reasons, r.String())
	}
	for c := range minisock.NumCauses {
		events = append(events, c.String())
	}
	for s := range minisock.NumStates {
		states = append(states, s.String())
	}
	for e := range lan.NumEvents {
		events = append(events, e.String())
	}
	for _, r := range flow.CloseReasons() {
		reasons = append(reasons, r.String())
	}
	for r := range proxy.NumDialResults {
		results = append(results, r.String())
	}
	results = append(results, "accepted", "refused", "dropped", "handshake_failed", "half_open_limit", "connection_limit")
	allowed := map[string][]string{
		"queue":     {"0", "1"},
		"direction": {"rx", "tx", "up", "down"},
		"protocol":  {"tcp", "udp"},
		"reason":    reasons,
		"result":    results,
		"event":     events,
		"state":     states,
		"offload":   {"vnet_hdr", "checksum", "tso4", "tso6", "ecn", "uso"},
		"version":   {"v1.2.3"}, "revision": {"abc"}, "goversion": {"go1.99"},
	}
	for name, f := range ours(t, New(sources()).reg) {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !slices.Contains(allowed[l.GetName()], l.GetValue()) || l.GetValue() == "unknown" {
					t.Errorf("%s has %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
}

// TestSeriesAreConstant: all series exist before anything happened, and traffic
// adds none.
func TestSeriesAreConstant(t *testing.T) {
	src := sources()
	count := func() (n int) {
		for _, f := range ours(t, New(src).reg) {
			n += len(f.Metric)
		}
		return n
	}
	before := count()
	var busy proxy.Stats
	busy.TCP.Closed = map[flow.CloseReason]uint64{flow.ReasonDone: 1, flow.ReasonError: 7}
	busy.TCP.Dials[proxy.DialDenied] = 3
	src.Proxy = func() proxy.Stats { return busy }
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	const queues, perQueueSeries = 2, 25
	src.Stack = func() netstack.Stats { return netstack.Stats{} }
	if without := count(); without != before-queues*perQueueSeries {
		t.Errorf("%d series without queues, %d with two", without, before)
	}
}

func TestCompare(t *testing.T) {
	src := sources()
	src.Stack = func() netstack.Stats {
		s := netstack.Stats{Accepted: 5, HalfOpenLimit: 2, Link: link.Stats{Queues: make([]link.QueueStats, 1)}}
		s.Link.Queues[0].Rx.Superframes = 1 << 40
		s.Link.Drops[link.DropLand] = 9
		return s
	}
	src.Proxy = func() proxy.Stats {
		var s proxy.Stats
		s.UDP.BytesDown = 77
		return s
	}
	src.Device = func() Device {
		return Device{Up: true, MTU: 1500, Queues: 1, Features: tundev.Features{VnetHdr: true, Checksum: true, TSO4: true, TSO6: true}}
	}
	const want = `
# HELP tungate_build_info The program itself: always 1, what matters is in the labels.
# TYPE tungate_build_info gauge
tungate_build_info{goversion="go1.99",revision="abc",version="v1.2.3"} 1
# HELP tungate_device_mtu_bytes The largest IP packet the device carries.
# TYPE tungate_device_mtu_bytes gauge
tungate_device_mtu_bytes 1500
# HELP tungate_device_offload_enabled 1 while the kernel does this work for the gateway, 0 when it refused or the config turned it off.
# TYPE tungate_device_offload_enabled gauge
tungate_device_offload_enabled{offload="checksum"} 1
tungate_device_offload_enabled{offload="ecn"} 0
tungate_device_offload_enabled{offload="tso4"} 1
tungate_device_offload_enabled{offload="tso6"} 1
tungate_device_offload_enabled{offload="uso"} 0
tungate_device_offload_enabled{offload="vnet_hdr"} 1
# HELP tungate_device_superframes_total Frames with a GSO type: up to 64 KiB of TCP that crossed the device in one piece.
# TYPE tungate_device_superframes_total counter
tungate_device_superframes_total{direction="rx",queue="0"} 1.099511627776e+12
tungate_device_superframes_total{direction="tx",queue="0"} 0
# HELP tungate_proxy_bytes_total Payload relayed: up is from client to upstream, down the other way.
# TYPE tungate_proxy_bytes_total counter
tungate_proxy_bytes_total{direction="down",protocol="tcp"} 0
tungate_proxy_bytes_total{direction="down",protocol="udp"} 77
tungate_proxy_bytes_total{direction="up",protocol="tcp"} 0
tungate_proxy_bytes_total{direction="up",protocol="udp"} 0
`
	r := New(src)
	err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "tungate_build_info", "tungate_device_mtu_bytes",
		"tungate_device_offload_enabled", "tungate_device_superframes_total", "tungate_proxy_bytes_total")
	if err != nil {
		t.Error(err)
	}
	collected := newCollector(stackMetrics(), src.Stack)
	const halfOpen = `
# HELP tungate_tcp_half_open Connection attempts being dialled or in their handshake now.
# TYPE tungate_tcp_half_open gauge
tungate_tcp_half_open 0
`
	if err := testutil.CollectAndCompare(collected, strings.NewReader(halfOpen), "tungate_tcp_half_open"); err != nil {
		t.Error(err)
	}
	body := scrape(t, r)
	for _, line := range []string{
		`tungate_device_frames_dropped_total{direction="rx",reason="land"} 9`,
		`tungate_device_frames_dropped_total{direction="tx",reason="tx_full"} 0`,
		`tungate_tcp_attempts_total{result="accepted"} 5`,
		`tungate_tcp_attempts_total{result="half_open_limit"} 2`,
		`go_goroutines `, `process_open_fds `,
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("a scrape lacks %s", line)
		}
	}
}

// scrape asks as Prometheus does, which would take gzip.
func scrape(t testing.TB, r *Registry) string {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != "" {
		t.Fatalf("a scrape: %d, %v, %v", w.Code, w.Header(), err)
	}
	return string(body)
}

// TestSnapshotOnce: all samples of a source are of one moment.
func TestSnapshotOnce(t *testing.T) {
	src, calls := sources(), 0
	stack := src.Stack
	src.Stack = func() netstack.Stats { calls++; return stack() }
	r := New(src)
	if calls != 0 {
		t.Errorf("New took %d snapshots", calls)
	}
	scrape(t, r)
	if calls != 1 {
		t.Errorf("a scrape took %d snapshots", calls)
	}
}

func TestSourcesMayBeMissing(t *testing.T) {
	if found := ours(t, New(Sources{}).reg); len(found) != 1 || found["tungate_build_info"] == nil {
		t.Errorf("without sources there is %v", found)
	}
}

// TestPrivate: nothing of ours is in Prometheus's default registry, and two
// gateways in a process do not meet.
func TestPrivate(t *testing.T) {
	New(sources())
	New(sources())
	if found := ours(t, prometheus.DefaultGatherer); len(found) != 0 {
		t.Errorf("the default registry has %v", found)
	}
}

// TestScrapeIsModest bounds what a scrape allocates. Its bulk is Prometheus's own,
// a handful of objects a series; a field that allocated per flow would show.
func TestScrapeIsModest(t *testing.T) {
	c := newCollector(stackMetrics(), sources().Stack)
	ch := make(chan prometheus.Metric, 1000)
	series := 0
	allocs := testing.AllocsPerRun(20, func() {
		c.Collect(ch)
		for series = 0; len(ch) > 0; series++ {
			<-ch
		}
	})
	if limit := float64(12 * series); allocs > limit {
		t.Errorf("%v allocations for %d series, more than %v", allocs, series, limit)
	}
}

func TestTooManyScrapesAreRefused(t *testing.T) {
	src := sources()
	entered, proceed := make(chan struct{}, maxScrapes), make(chan struct{})
	src.Device = func() Device {
		entered <- struct{}{}
		<-proceed
		return Device{}
	}
	h := New(src).Handler()
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Code
	}
	codes := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() { codes <- ask() }()
	}
	for range maxScrapes {
		<-entered
	}
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("a scrape past the limit gets %d", code)
	}
	close(proceed)
	for range maxScrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a scrape within the limit gets %d", code)
		}
	}
}

// TestWrongRowPanics: a row that emits other labels than it declares is a bug of
// this package and must not pass for a sample.
func TestWrongRowPanics(t *testing.T) {
	c := newCollector([]metric[Build]{{name: "x", labels: []string{"a"}, emit: func(_ *Build, put put) { put(1) }}},
		func() Build { return Build{} })
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	c.Collect(make(chan prometheus.Metric, 1))
}

func BenchmarkScrape(b *testing.B) {
	h := New(sources()).Handler()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(&discard{header: http.Header{}}, req)
	}
}

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int) {
	if status != http.StatusOK {
		panic(errors.New(http.StatusText(status)))
	}
}
