package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// sample is the gateway at one moment.
type sample struct {
	at        time.Duration // since the run began
	phase     string
	open      int64 // connections of the clients that stand
	rss, heap int64 // bytes
	cpu       time.Duration
	gcs       int
	gcPause   time.Duration // all pauses so far
	held      int           // connections that the gateway holds, the prober's among them
	conntrack int
}

// point is the way from one number of connections to the next.
type point struct {
	conns        int64
	perSecond    float64
	rss          int64
	rssPerConn   float64
	cpuPerConn   time.Duration
	cores        float64
	gcs          int
	gcPause      time.Duration
	slowestProbe time.Duration
}

// watch samples the gateway each second until it is stopped.
type watch struct {
	ns    *testutil.Namespace
	gw    *testutil.Gateway
	fleet *fleet
	begun time.Time

	mu      sync.Mutex
	phase   string
	samples []sample
	probes  map[string][]probe // by phase
}

// now samples the gateway; the metrics cost it something at a million connections.
func (w *watch) now() (sample, error) {
	s := sample{at: time.Since(w.begun), open: w.fleet.open.Load()}
	var err error
	if s.rss, err = testutil.RSS(w.gw.PID); err != nil {
		return s, err
	}
	if s.cpu, err = testutil.CPU(w.gw.PID); err != nil {
		return s, err
	}
	m, err := w.gw.Metrics()
	if err != nil {
		return s, err
	}
	s.heap = int64(m["go_memstats_heap_alloc_bytes"])
	s.gcs = int(m["go_gc_duration_seconds_count"])
	s.gcPause = time.Duration(m["go_gc_duration_seconds_sum"] * float64(time.Second))
	s.held = int(m["tungate_tcp_established"])
	// Without the module there is no such file, and nothing is tracked.
	if text, err := w.ns.ReadSysctl("netfilter/nf_conntrack_count"); err == nil {
		s.conntrack, _ = strconv.Atoi(text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.phase = w.phase
	w.samples = append(w.samples, s)
	return s, nil
}

// enter begins a phase.
func (w *watch) enter(phase string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = phase
}

// probed notes a fresh connection.
func (w *watch) probed(p probe) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes[w.phase] = append(w.probes[w.phase], p)
}

// slowest is the longest that a fresh connection took to open in a phase, and how
// many of how many failed.
func (w *watch) slowest(phase string) (open, echo time.Duration, failed, all int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.probes[phase] {
		open, echo = max(open, p.Open), max(echo, p.Echo)
		if p.Err != "" {
			failed++
		}
	}
	return open, echo, failed, len(w.probes[phase])
}

// maxConntrack is the largest number of tracked connections seen.
func (w *watch) maxConntrack() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := 0
	for _, s := range w.samples {
		most = max(most, s.conntrack)
	}
	return most
}

// between is the point at b, coming from a.
func between(start, a, b sample) point {
	n, dt := b.open-a.open, b.at-a.at
	p := point{
		conns: b.open, rss: b.rss, gcs: b.gcs - a.gcs, gcPause: b.gcPause - a.gcPause,
		perSecond: float64(n) / dt.Seconds(), cores: (b.cpu - a.cpu).Seconds() / dt.Seconds(),
	}
	if n > 0 {
		p.cpuPerConn = (b.cpu - a.cpu) / time.Duration(n)
	}
	if b.open > 0 {
		p.rssPerConn = float64(b.rss-start.rss) / float64(b.open)
	}
	return p
}

// writeCSV stores the points.
func writeCSV(path string, points []point) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	rows := [][]string{{
		"connections", "opened_per_second", "rss_bytes", "rss_bytes_per_connection", "cpu_us_per_connection",
		"cpu_cores", "gc_cycles", "gc_pause_ms", "slowest_fresh_connection_ms",
	}}
	for _, p := range points {
		rows = append(rows, []string{
			strconv.FormatInt(p.conns, 10), fmt.Sprintf("%.0f", p.perSecond), strconv.FormatInt(p.rss, 10),
			fmt.Sprintf("%.0f", p.rssPerConn), fmt.Sprintf("%.1f", micros(p.cpuPerConn)), fmt.Sprintf("%.2f", p.cores),
			strconv.Itoa(p.gcs), fmt.Sprintf("%.2f", millis(p.gcPause)), fmt.Sprintf("%.1f", millis(p.slowestProbe)),
		})
	}
	return w.WriteAll(rows)
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
