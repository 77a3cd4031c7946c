package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/proxy"
)

// maxScrapes bounds the scrapes in progress: more than a pair of redundant
// Prometheus servers and a curious person need, and few enough that a loop of
// scrapes costs no more memory than these. One past it gets 503.
const maxScrapes = 4

// Build is what the program knows of its own making.
type Build struct {
	Version  string // "v0.1.0", "devel"
	Revision string // commit
	Go       string // runtime.Version()
}

// Sources are where a scrape gets its snapshots. Each function is called once a
// scrape, from any goroutine, and must not block; nil leaves its metrics out.
type Sources struct {
	Stack  func() netstack.Stats
	Proxy  func() proxy.Stats
	Device func() Device
	Memory func() Memory
	Build  Build
}

// Registry holds the collectors of one gateway.
type Registry struct {
	reg *prometheus.Registry
}

// New returns a registry of s, of the Go runtime and of the process.
func New(s Sources) *Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		newCollector(buildMetrics(), func() Build { return s.Build }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	if s.Stack != nil {
		reg.MustRegister(newCollector(stackMetrics(), s.Stack))
	}
	if s.Proxy != nil {
		reg.MustRegister(newCollector(proxyMetrics(), s.Proxy))
	}
	if s.Device != nil {
		reg.MustRegister(newCollector(deviceMetrics(), s.Device))
	}
	if s.Memory != nil {
		reg.MustRegister(newCollector(memoryMetrics(), s.Memory))
	}
	return &Registry{reg: reg}
}

// Handler serves the registry in Prometheus's text format. The answer is not
// compressed: the scraper is near, and a compressor holds more memory than all
// the samples.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
		DisableCompression:  true,
	})
}

func buildMetrics() []metric[Build] {
	return []metric[Build]{{
		name: "build_info", kind: gauge,
		help:   "The program itself: always 1, what matters is in the labels.",
		labels: []string{"version", "revision", "goversion"},
		emit:   func(b *Build, put put) { put(1, b.Version, b.Revision, b.Go) },
	}}
}
