package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// samples holds every value: subject, metric, one a round.
type samples map[string]map[string][]float64

func (s samples) add(subject, metric string, v float64) {
	if s[subject] == nil {
		s[subject] = map[string][]float64{}
	}
	s[subject][metric] = append(s[subject][metric], v)
}

// median is NaN when nothing was measured.
func (s samples) median(subject, metric string) float64 { return median(s[subject][metric]) }

func median(of []float64) float64 {
	v := slices.Sorted(slices.Values(of))
	switch n := len(v); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// write stores every sample, as CSV or JSON by the file's name.
func (s samples) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if filepath.Ext(path) != ".csv" {
		e := json.NewEncoder(f)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	w := csv.NewWriter(f)
	rows := [][]string{{"subject", "metric", "round", "value"}}
	for subject, metrics := range s {
		for metric, values := range metrics {
			for i, v := range values {
				rows = append(rows, []string{subject, metric, strconv.Itoa(i + 1), strconv.FormatFloat(v, 'g', -1, 64)})
			}
		}
	}
	slices.SortFunc(rows[1:], slices.Compare)
	return w.WriteAll(rows)
}

// less says for a metric whether less of it is better.
func less(metric string) bool {
	return !strings.HasSuffix(metric, "/s") && !strings.HasSuffix(metric, "%")
}

// metrics lists what was measured of subjects, in the order of the table.
func (b *bench) metrics(subjects []*subject) []string {
	var rows []string
	for _, n := range b.streams {
		for _, way := range []string{"up ", "down "} {
			rows = append(rows, way+n+" Gbit/s")
		}
	}
	for _, n := range b.streams {
		for _, way := range []string{"up ", "down "} {
			rows = append(rows, way+n+" s/GB", way+n+" superframes %")
		}
	}
	rows = append(rows, "crr /s", "crr failed", "rr p50 us", "rr p99 us", "rr load p50 us", "rr load p99 us", "rr64 /s", "idle B/connection")
	return slices.DeleteFunc(rows, func(metric string) bool {
		return !slices.ContainsFunc(subjects, func(s *subject) bool { return len(b.samples[s.name][metric]) > 0 })
	})
}

// report prints the table, and the goals against it.
func (b *bench) report(w io.Writer, subjects []*subject) {
	fmt.Fprintf(w, "Medians of %d rounds of %d s, cubic at both ends. Ratios are ours/other; above 1 is more.\n\n", b.rounds, b.seconds)
	peers := slices.Clone(subjects)
	peers = slices.DeleteFunc(peers, func(s *subject) bool { return s.name == ours || s.name == plain })
	head := []string{"", ours}
	for _, s := range peers {
		head = append(head, s.name)
	}
	head = append(head, plain, ours+"/best peer", ours+"/"+plain)
	row(w, head)
	row(w, slices.Repeat([]string{"---"}, len(head)))
	for _, metric := range b.metrics(subjects) {
		us, base := b.samples.median(ours, metric), b.samples.median(plain, metric)
		cells := []string{metric, number(us)}
		best := math.NaN()
		for _, s := range peers {
			v := b.samples.median(s.name, metric)
			cells = append(cells, number(v))
			if math.IsNaN(best) || less(metric) && v < best || !less(metric) && v > best {
				best = v
			}
		}
		row(w, append(cells, number(base), ratio(us, best), ratio(us, base)))
	}
	fmt.Fprintln(w)
	for _, s := range subjects {
		fmt.Fprintf(w, "- %s: %s\n", s.name, s.about)
	}
	b.goals(w)
}

// goal is a figure the project promises.
type goal struct {
	metric string
	bound  float64
}

// goals prints whether each is met. Only a full run on a quiet machine decides.
func (b *bench) goals(w io.Writer) {
	var list []goal
	for _, n := range b.streams {
		list = append(list,
			goal{"up " + n + " Gbit/s", 12}, goal{"down " + n + " Gbit/s", 10},
			goal{"up " + n + " superframes %", 95}, goal{"down " + n + " superframes %", 95})
	}
	list = append(list, goal{"rr p50 us", 200}, goal{"idle B/connection", 20_000})
	fmt.Fprintln(w)
	row(w, []string{"goal", "bound", "measured", "met"})
	row(w, slices.Repeat([]string{"---"}, 4))
	for _, g := range list {
		v := b.samples.median(ours, g.metric)
		if math.IsNaN(v) {
			continue
		}
		sign, met := ">=", v >= g.bound
		if less(g.metric) {
			sign, met = "<=", v <= g.bound
		}
		verdict := "yes"
		if !met {
			verdict = "**no**"
		}
		row(w, []string{g.metric, sign + " " + number(g.bound), number(v), verdict})
	}
}

func row(w io.Writer, cells []string) {
	fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
}

// number prints three digits that matter.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

func ratio(a, b float64) string {
	if math.IsNaN(a) || math.IsNaN(b) || b == 0 {
		return "-"
	}
	return strconv.FormatFloat(a/b, 'f', 2, 64)
}
