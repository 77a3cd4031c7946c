package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	s := samples{}
	for _, v := range []float64{3, 1, 2} {
		s.add("a", "odd /s", v)
		s.add("a", "even us", v)
	}
	s.add("a", "even us", 4)
	if got := s.median("a", "odd /s"); got != 2 {
		t.Errorf("median %v, want 2", got)
	}
	if got := s.median("a", "even us"); got != 2.5 {
		t.Errorf("median %v, want 2.5", got)
	}
	if got := s.median("nobody", "odd /s"); !math.IsNaN(got) {
		t.Errorf("median of nothing %v, want NaN", got)
	}
}

// TestReport wants the best peer by the metric's own direction, and goals judged.
func TestReport(t *testing.T) {
	b := &bench{options: options{rounds: 1, seconds: 3, streams: []string{"1"}}, samples: samples{}}
	for subject, v := range map[string][3]float64{
		ours: {13, 100, 21_000}, plain: {26, 50, 0}, "pasta": {10, 200, 0}, "haproxy": {6.5, 80, 0},
	} {
		b.samples.add(subject, "up 1 Gbit/s", v[0])
		b.samples.add(subject, "rr p50 us", v[1])
		if v[2] > 0 {
			b.samples.add(subject, "idle B/connection", v[2])
		}
	}
	var out strings.Builder
	b.report(&out, []*subject{{name: plain}, {name: ours}, {name: "pasta"}, {name: "haproxy"}})
	for _, want := range []string{
		"|  | tungate | pasta | haproxy | kernel | tungate/best peer | tungate/kernel |",
		"| up 1 Gbit/s | 13.0 | 10.0 | 6.50 | 26.0 | 1.30 | 0.50 |",
		"| rr p50 us | 100 | 200 | 80.0 | 50.0 | 1.25 | 2.00 |",
		"| up 1 Gbit/s | >= 12.0 | 13.0 | yes |",
		"| idle B/connection | <= 20000 | 21000 | **no** |",
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("want the line %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "crr") {
		t.Error("a row that nobody measured is printed")
	}
}

func TestWrite(t *testing.T) {
	s := samples{}
	s.add("kernel", "crr /s", 2)
	s.add("kernel", "crr /s", 1.5)
	for name, want := range map[string]string{
		"a.csv":  "subject,metric,round,value\nkernel,crr /s,1,2\nkernel,crr /s,2,1.5\n",
		"a.json": "{\n  \"kernel\": {\n    \"crr /s\": [\n      2,\n      1.5\n    ]\n  }\n}\n",
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := s.write(path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}
