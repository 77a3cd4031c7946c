package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// comparison is a row of the second table: a figure of one subject, and the same
// figure of what it is held against.
type comparison struct {
	subject string
	metric  string
	beside  string  // "" where there is nothing
	goal    float64 // of the ratio, or of the figure where there is none; 0 is no goal
	noise   float64 // by how much a ratio may miss its goal and still be no proof
}

// comparisons lists the second table in its order.
func (b *bench) comparisons() []comparison {
	const read, slower, noise, merged = 0.9, 1, 0.05, 2.5
	rows := []comparison{
		{tundevLoop, "frames k/s", rawRead, read, 0},
		{tundevLoop, "superframes Gbit/s", rawRead, read, 0},
		{tundevLoop, "frames CPU ns", rawRead, 0, 0},
		{tundevLoop, "superframes CPU ns", rawRead, 0, 0},
	}
	bulk := func(unit string, add func(metric string)) {
		for _, n := range b.streams {
			add("up " + n + unit)
			add("down " + n + unit)
		}
	}
	bulk(" Gbit/s", func(metric string) { rows = append(rows, comparison{sinkOurs, metric, "", sinkGoals()[metric], 0}) })
	bulk(" s/GB", func(metric string) { rows = append(rows, comparison{sinkOurs, metric, "", 0, 0}) })
	two := func(metric string) { rows = append(rows, comparison{twoQueues, metric, oneQueue, slower, noise}) }
	bulk(" Gbit/s", two)
	two("crr /s")
	two("rr p50 us")
	bulk(" Gbit/s", func(metric string) { rows = append(rows, comparison{sinkNoVnet, metric, sinkBare, merged, 0}) })
	return slices.DeleteFunc(rows, func(c comparison) bool {
		return len(b.samples[c.subject][c.metric])+len(b.samples[c.beside][c.metric]) == 0
	})
}

// sinkGoals are what one flow is promised through the stack.
func sinkGoals() map[string]float64 {
	return map[string]float64{"up 1 Gbit/s": 20, "down 1 Gbit/s": 14}
}

// ratio is how many times as good the row's figure is as the one beside it: the
// median over pairs that were measured one after the other, since a minute changes
// the machine more than what is compared differs.
func (s samples) ratio(c comparison) float64 {
	v, base := s[c.subject][c.metric], s[c.beside][c.metric]
	if len(v) != len(base) { // a measurement failed, and nobody knows whose pair it was
		return better(c.metric, median(v), median(base))
	}
	ratios := make([]float64, len(v))
	for i := range v {
		ratios[i] = better(c.metric, v[i], base[i])
	}
	return median(ratios)
}

// better is how many times as good a is as b.
func better(metric string, a, b float64) float64 {
	if less(metric) {
		a, b = b, a
	}
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// verdict judges a value against the row's goal.
func (c comparison) verdict(v float64) (bound, met string) {
	if c.goal == 0 {
		return "", ""
	}
	bound = ">= " + number(c.goal)
	if c.beside != "" {
		bound += " x"
	}
	switch {
	case v >= c.goal:
		return bound, "yes"
	case v >= c.goal-c.noise:
		return bound, "yes, within noise"
	}
	return bound, "**no**" // and so is what was not measured
}

// reportDevice prints the second table.
func (b *bench) reportDevice(w io.Writer) {
	rows := b.comparisons()
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\nThe device and the stack by themselves; medians of %d rounds of %d s. Ratios are medians of pairs\nmeasured one after the other; above 1 is in favour of the first.\n\n", b.rounds, b.seconds)
	row(w, []string{"", "measured", "beside", "", "ratio", "goal", "met"})
	row(w, slices.Repeat([]string{"---"}, 7))
	for _, c := range rows {
		v, base := b.samples.median(c.subject, c.metric), b.samples.median(c.beside, c.metric)
		r := b.samples.ratio(c)
		judged := r
		if c.beside == "" {
			judged = v
		}
		bound, met := c.verdict(judged)
		row(w, []string{c.subject + ": " + c.metric, number(v), c.beside, number(base), number(r), bound, met})
	}
}
