package metrics

import "github.com/prometheus/client_golang/prometheus"

// kind is a sample's type.
type kind = prometheus.ValueType

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// put emits one sample; labels are the values of metric.labels, in order.
type put func(v float64, labels ...string)

// metric is one row: a name, what it means, and how to read it from a snapshot.
type metric[S any] struct {
	name   string // without tungate_
	kind   kind
	help   string
	labels []string
	emit   func(s *S, put put)
}

// collector turns snapshots of one source into samples.
type collector[S any] struct {
	metrics  []metric[S]
	descs    []*prometheus.Desc // of metrics, same order
	snapshot func() S
}

func newCollector[S any](metrics []metric[S], snapshot func() S) *collector[S] {
	c := &collector[S]{metrics: metrics, snapshot: snapshot}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc("tungate_"+m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector[S]) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It panics when a row emits other
// labels than it declares, which no snapshot can bring about.
func (c *collector[S]) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	for i, m := range c.metrics {
		m.emit(&s, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], m.kind, v, labels...)
		})
	}
}

// scalar is a row without labels.
func scalar[S any](name string, k kind, help string, read func(*S) float64) metric[S] {
	return metric[S]{name: name, kind: k, help: help, emit: func(s *S, put put) { put(read(s)) }}
}

// number is what counters and gauges are kept in.
type number interface {
	~int | ~int64 | ~uint32 | ~uint64
}

// total is a counter without labels.
func total[S any, N number](name, help string, read func(*S) N) metric[S] {
	return scalar(name, counter, help, func(s *S) float64 { return float64(read(s)) })
}

// level is a gauge without labels.
func level[S any, N number](name, help string, read func(*S) N) metric[S] {
	return scalar(name, gauge, help, func(s *S) float64 { return float64(read(s)) })
}

// split is a counter with one label that tells two fields apart.
func split[S any, N number](name, help, label string, values [2]string, read func(*S) (N, N)) metric[S] {
	return metric[S]{
		name: name, kind: counter, help: help, labels: []string{label},
		emit: func(s *S, put put) {
			a, b := read(s)
			put(float64(a), values[0])
			put(float64(b), values[1])
		},
	}
}
