package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// The goals of the issue.
const (
	goalPerSecond = 10_000
	goalFall      = 0.8 // of the rate of the first point: noise on a shared machine
	goalRSS       = int64(65) << 30 / 10
	goalFresh     = 100 * time.Millisecond
	goalMemory    = 0.10
)

// goal is one line of what was promised.
type goal struct {
	what, got string
	met       bool
}

func (r *run) goal(met bool, what, format string, args ...any) {
	r.goals = append(r.goals, goal{what, fmt.Sprintf(format, args...), met})
}

// report prints what was measured as Markdown: the curve, the phases, the goals.
func (r *run) report(w io.Writer) {
	if len(r.points) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%d connections over 250 addresses, %d processes of clients, %s before the first.\n\n",
		r.n, len(r.fleet.workers), size(r.start.rss))
	fmt.Fprintln(w, "| connections | opened/s | resident | B/connection | CPU us each | cores | GCs | GC pauses ms |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, p := range r.points {
		fmt.Fprintf(w, "| %d | %.0f | %s | %.0f | %.1f | %.2f | %d | %.2f |\n",
			p.conns, p.perSecond, size(p.rss), p.rssPerConn, micros(p.cpuPerConn), p.cores, p.gcs, millis(p.gcPause))
	}
	fmt.Fprintln(w, "\n| phase | connections | failed | lost | seconds | gateway holds | resident after | heap after | cores | slowest fresh connection | fresh ones failed | packets to the device, dropped |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, l := range r.rows {
		fmt.Fprintf(w, "| %s | %d | %d | %d | %.1f | %d | %s | %s | %.2f | %.0f ms, echo %.0f ms | %d of %d | %d, %d |\n", l.phase, l.done, l.failed,
			l.lost, l.took.Seconds(), l.held, size(l.rss), size(l.heap), l.cores, millis(l.probe), millis(l.echo), l.probeFails, l.probes, l.packets, l.dropped)
	}
	fmt.Fprintln(w, "\nWhat the gateway counted (tungate_tcp_flow_events_total):")
	fmt.Fprintln(w)
	for _, l := range r.rows {
		fmt.Fprintf(w, "- %s: %s\n", l.phase, l.events)
	}
	for _, l := range r.rows {
		if l.note != "" {
			fmt.Fprintf(w, "\n%s: %s.", l.phase, l.note)
		}
		if l.firstErr != "" {
			fmt.Fprintf(w, "\n%s: the first failure was %s.", l.phase, l.firstErr)
		}
	}
	r.judge()
	fmt.Fprintln(w, "\n\n| goal | measured | met |")
	fmt.Fprintln(w, "|---|---|---|")
	for _, g := range r.goals {
		fmt.Fprintf(w, "| %s | %s | %s |\n", g.what, g.got, map[bool]string{true: "yes", false: "NO"}[g.met])
	}
}

// judge compares with the goals.
func (r *run) judge() {
	least := r.points[0].perSecond
	for _, p := range r.points {
		least = min(least, p.perSecond)
	}
	first, last := r.points[0], r.points[len(r.points)-1]
	r.goal(least >= goalPerSecond, fmt.Sprintf("at least %d opened a second all along", goalPerSecond), "%.0f at the slowest point", least)
	r.goal(last.perSecond >= goalFall*first.perSecond, "no fall from the first point to the last", "%.0f, then %.0f", first.perSecond, last.perSecond)
	var most int64
	for _, s := range r.watch.samples {
		most = max(most, s.rss)
	}
	r.goal(most <= goalRSS, fmt.Sprintf("at most %s resident", size(goalRSS)), "%s", size(most))
	var slowest time.Duration
	var failed, probes, lost int
	for _, l := range r.rows {
		if l.phase == "hold" || l.phase == "a byte on each" {
			// The gateway can drop a connection without its client knowing yet.
			lost = max(lost, l.lost, r.n-l.held)
		}
		if l.probe > slowest {
			slowest = l.probe
		}
		failed, probes = failed+l.probeFails, probes+l.probes
		if strings.HasPrefix(l.phase, "open") {
			r.goal(l.failed == 0 && l.done == int64(r.n), fmt.Sprintf("%s: all %d", l.phase, r.n), "%d, %d failed", l.done, l.failed)
		}
	}
	r.goal(lost == 0, "none lost while held", "%d", lost)
	r.goal(failed == 0 && slowest < goalFresh, fmt.Sprintf("a fresh connection opens in < %v throughout", goalFresh),
		"%.0f ms at worst, %d of %d failed", millis(slowest), failed, probes)
	for _, l := range r.rows {
		if strings.HasPrefix(l.phase, "after ") {
			met := float64(l.rss) <= (1+goalMemory)*float64(r.start.rss)
			r.goal(met, fmt.Sprintf("%s: memory within 10 %% of the start in %v", l.phase, r.settle),
				"%s at the start, %s after (heap %s, then %s)", size(r.start.rss), size(l.rss), size(r.start.heap), size(l.heap))
		}
	}
	tracked := r.watch.maxConntrack()
	r.goal(tracked == 0, "nf_conntrack counts 0 throughout", "%d at most", tracked)
}

// size writes bytes as a person would.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", mib(n))
}

// draw writes the curve as CSV and as a picture.
func (r *run) draw() error {
	if err := writeCSV(filepath.Join(r.out, "scale.csv"), r.points); err != nil {
		return err
	}
	rate := panel{title: "opened a second", goal: goalPerSecond}
	memory := panel{title: "resident memory, GiB", goal: float64(goalRSS) / (1 << 30)}
	cpu := panel{title: "gateway's CPU for each, µs"}
	gc := panel{title: "garbage collections so far"}
	var before []sample
	for _, s := range r.watch.samples {
		if s.phase != "open" || s.open == 0 {
			continue
		}
		x := float64(s.open)
		memory.line = append(memory.line, xy{x, float64(s.rss) / (1 << 30)})
		gc.line = append(gc.line, xy{x, float64(s.gcs - r.start.gcs)})
		// A rate over less than some seconds shows the sampling, not the gateway.
		const over = 4
		if before = append(before, s); len(before) > over {
			p := between(r.start, before[len(before)-1-over], s)
			rate.line = append(rate.line, xy{x, p.perSecond})
			cpu.line = append(cpu.line, xy{x, micros(p.cpuPerConn)})
		}
	}
	cycles := 0
	for _, p := range r.points {
		x := float64(p.conns)
		cycles += p.gcs
		rate.marks = append(rate.marks, xy{x, p.perSecond})
		memory.marks = append(memory.marks, xy{x, float64(p.rss) / (1 << 30)})
		cpu.marks = append(cpu.marks, xy{x, micros(p.cpuPerConn)})
		gc.marks = append(gc.marks, xy{x, float64(cycles)})
	}
	caption := fmt.Sprintf("Opening %d connections on 2 cores shared with the clients; dots: mean since the dot before; dashed: goal", r.n)
	return writeSVG(filepath.Join(r.out, "scale.svg"), caption, []panel{rate, memory, cpu, gc})
}
