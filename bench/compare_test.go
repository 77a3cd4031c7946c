package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// TestReportDevice wants each row judged by its own rule: a ratio in favour of the
// first, a figure alone, and the noise of a ratio forgiven.
func TestReportDevice(t *testing.T) {
	b := &bench{options: options{rounds: 1, seconds: 3, streams: []string{"1", "8"}}, samples: samples{}}
	for _, s := range []struct {
		subject, metric string
		value           float64
	}{
		{tundevLoop, "frames k/s", 890},
		{rawRead, "frames k/s", 1000},
		{tundevLoop, "frames CPU ns", 1000},
		{rawRead, "frames CPU ns", 900},
		{rawRead, "superframes Gbit/s", 100},
		{sinkOurs, "up 1 Gbit/s", 20},
		{sinkOurs, "down 1 Gbit/s", 13.9},
		{sinkOurs, "down 8 Gbit/s", 5},
		{twoQueues, "up 1 Gbit/s", 9.6},
		{oneQueue, "up 1 Gbit/s", 10},
		{twoQueues, "rr p50 us", 20},
		{oneQueue, "rr p50 us", 18},
		{sinkNoVnet, "up 1 Gbit/s", 5},
		{sinkBare, "up 1 Gbit/s", 2},
		{sinkNoVnet, "up 8 Gbit/s", 3},
		{sinkBare, "up 8 Gbit/s", 2},
	} {
		b.samples.add(s.subject, s.metric, s.value)
	}
	var out strings.Builder
	b.reportDevice(&out)
	for _, want := range []string{
		"| tundev loop: frames k/s | 890 | read(2) | 1000 | 0.89 | >= 0.90 x | **no** |",
		"| tundev loop: frames CPU ns | 1000 | read(2) | 900 | 0.90 |  |  |",
		"| tundev loop: superframes Gbit/s | - | read(2) | 100 | - | >= 0.90 x | **no** |",
		"| sink: up 1 Gbit/s | 20.0 |  | - | - | >= 20.0 | yes |",
		"| sink: down 1 Gbit/s | 13.9 |  | - | - | >= 14.0 | **no** |",
		"| sink: down 8 Gbit/s | 5.00 |  | - | - |  |  |",
		"| 2 queues: up 1 Gbit/s | 9.60 | 1 queue | 10.0 | 0.96 | >= 1.00 x | yes, within noise |",
		"| 2 queues: rr p50 us | 20.0 | 1 queue | 18.0 | 0.90 | >= 1.00 x | **no** |",
		"| sink without vnet_hdr: up 1 Gbit/s | 5.00 | gVisor's fdbased | 2.00 | 2.50 | >= 2.50 x | yes |",
		"| sink without vnet_hdr: up 8 Gbit/s | 3.00 | gVisor's fdbased | 2.00 | 1.50 | >= 2.50 x | **no** |",
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("want the line %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "crr") {
		t.Error("a row that nobody measured is printed")
	}
}

// TestReportDeviceEmpty prints nothing of a table that nobody asked for.
func TestReportDeviceEmpty(t *testing.T) {
	b := &bench{options: options{streams: []string{"1"}}, samples: samples{}}
	b.samples.add(ours, "up 1 Gbit/s", 1)
	var out strings.Builder
	if b.reportDevice(&out); out.Len() > 0 {
		t.Errorf("printed:\n%s", out.String())
	}
}

// TestTablesApart keeps what the second table measured out of the first.
func TestTablesApart(t *testing.T) {
	b := &bench{options: options{streams: []string{"1"}}, samples: samples{}}
	b.samples.add(ours, "up 1 Gbit/s", 1)
	b.samples.add(twoQueues, "crr /s", 1)
	if got := b.metrics([]*subject{{name: ours}}); len(got) != 1 || got[0] != "up 1 Gbit/s" {
		t.Errorf("rows %q, want the gateway's alone", got)
	}
}

// TestRatio wants pairs compared, not the medians of two minutes of the machine's day.
func TestRatio(t *testing.T) {
	s := samples{}
	for i, v := range []float64{10, 20, 5} {
		s.add("a", "crr /s", v*[]float64{0.9, 1.2, 0.9}[i])
		s.add("b", "crr /s", v)
	}
	c := comparison{subject: "a", metric: "crr /s", beside: "b"}
	if got := s.ratio(c); got != 0.9 {
		t.Errorf("ratio %v, want 0.9", got)
	}
	s.add("b", "crr /s", 18)
	if got, want := s.ratio(c), 9.0/14; got != want {
		t.Errorf("ratio without pairs %v, want the medians' %v", got, want)
	}
}

func TestBetter(t *testing.T) {
	for _, c := range []struct {
		metric     string
		a, b, want float64
	}{
		{"up 1 Gbit/s", 3, 2, 1.5},
		{"rr p50 us", 3, 2, 2.0 / 3},
		{"up 1 Gbit/s", 3, 0, math.NaN()},
		{"up 1 Gbit/s", math.NaN(), 2, math.NaN()},
	} {
		if got := better(c.metric, c.a, c.b); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("better(%q, %v, %v) = %v, want %v", c.metric, c.a, c.b, got, c.want)
		}
	}
}

// TestAlternately wants every subject each time, in turned order, and all errors.
func TestAlternately(t *testing.T) {
	for turn, want := range map[int]string{1: "abc", 2: "cba", 3: "abc"} {
		got := ""
		err := alternately(turn, []string{"a", "b", "c"}, func(s string) error {
			got += s
			return errors.New(s + " failed")
		})
		if got != want {
			t.Errorf("turn %d: order %q, want %q", turn, got, want)
		}
		for _, s := range []string{"a failed", "b failed", "c failed"} {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Errorf("turn %d: error %v lacks %q", turn, err, s)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	o := options{tests: testNames()}
	if err := o.validate(); err != nil {
		t.Error(err)
	}
	o.tests = []string{"bulk", "bulky"}
	if err := o.validate(); err == nil || !strings.Contains(err.Error(), `"bulky" is not one of idle, `) {
		t.Errorf("error %v, want bulky named with what there is", err)
	}
}

// TestEndless hands out exactly what it promised.
func TestEndless(t *testing.T) {
	p := endless{b: []byte{1, 2, 3}}
	b := make([]byte, 2)
	for _, want := range []int{2, 1, 0} {
		if p.Len() < want {
			t.Errorf("length %d before a read of %d", p.Len(), want)
		}
		if n, err := p.Read(b); n != want || err != nil {
			t.Errorf("read %d, %v, want %d", n, err, want)
		}
	}
}
