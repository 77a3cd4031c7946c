package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// The goals of the issue.
const (
	goalP99 = 250 * time.Millisecond
	// goalMemory bounds the growth: 4096 half-open records and what Go keeps
	// around them are far below it, one goroutine or buffer a packet far above.
	goalMemory = 64 << 20
	// goalReplies a second: RSTs and challenge ACKs have 1000 each.
	goalReplies = 2100
	// What a client costs in packets towards it, at most, with one sent again.
	repliesPerClient = 6
)

// replyRate is how many packets a second the gateway sent beside the clients'.
func (r *result) replyRate(o options) float64 {
	return float64(max(0, r.replies-repliesPerClient*o.clients)) / float64(o.seconds)
}

// share is how much of the flood entered the gateway, in per cent; what clients sent
// entered by the same way.
func (r *result) share(o options) float64 {
	const packetsPerClient = 6
	return 100 * min(1, float64(max(0, r.entered-packetsPerClient*o.clients))/float64(max(r.sent, 1)))
}

// unmet lists the goals that were missed.
func (r *result) unmet(o options) []string {
	var bad []string
	if r.failed > 0 {
		bad = append(bad, fmt.Sprintf("%d failed (%s)", r.failed, r.firstErr))
	}
	if r.echoErr != "" {
		bad = append(bad, "the standing connection ended: "+r.echoErr)
	}
	if r.p99 >= goalP99 {
		bad = append(bad, "p99")
	}
	if r.peak-r.before > goalMemory {
		bad = append(bad, "memory")
	}
	if syns := r.flood.six || slices.Contains(r.flood.flags, "-S"); !syns && r.replyRate(o) > goalReplies {
		bad = append(bad, "replies")
	}
	return bad
}

// brief is a line while the run goes on.
func (r *result) brief(w io.Writer) {
	fmt.Fprintf(w, "%s, %s: %d of %d ok, p99 %s ms, %d packets sent, %s\n",
		r.config, r.flood.name, r.ok, r.ok+r.failed, millis(r.p99), r.sent, mib(r.peak))
}

// report prints the tables as Markdown.
func report(w io.Writer, results []result, o options) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintf(w, "%d real clients during floods of %d s. Goals: all succeed, p99 < %v, at most %s of growth, "+
		"at most %d replies a second to what is of no connection.\n\n", o.clients, o.seconds, goalP99, mib(goalMemory), goalReplies)
	fmt.Fprintln(w, "| config | flood | packets/s sent | entered | ok | p50 ms | p99 ms | max ms | past the goal | standing p99, max ms | resident before, peak, after | cores | most half-open | most records, left | replies/s | goals met |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range results {
		met := "yes"
		if bad := r.unmet(o); len(bad) > 0 {
			met = "NO: " + strings.Join(bad, ", ")
		}
		fmt.Fprintf(w, "| %s | %s | %d | %.1f %% | %d of %d | %s | %s | %s | %d | %s, %s | %s, %s, %s | %.2f | %d | %d, %d | %.0f | %s |\n",
			r.config, r.flood.name, r.sent/o.seconds, r.share(o),
			r.ok, r.ok+r.failed, millis(r.p50), millis(r.p99), millis(r.worst), r.slow, millis(r.echo99), millis(r.echoWorst),
			mib(r.before), mib(r.peak), mib(r.after), r.cores, r.halfOpen, r.tables, r.left, r.replyRate(o), met)
	}
	fmt.Fprintln(w, "\nWhat the gateway counted (tungate_tcp_flow_events_total and dropped frames):")
	fmt.Fprintln(w)
	for _, r := range results {
		fmt.Fprintf(w, "- %s, %s: %s\n", r.config, r.flood.name, eventText(r.events))
	}
}

// eventText names the largest counts.
func eventText(s testutil.Series) string {
	type count struct {
		name string
		n    float64
	}
	var all []count
	for key, v := range s {
		if v < 1 || !strings.HasPrefix(key, "tungate_tcp_flow_events_total") && !strings.HasPrefix(key, "tungate_device_frames_dropped_total") {
			continue
		}
		_, labels, _ := strings.Cut(key, "{")
		all = append(all, count{strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(labels, `"`, ""), "event=", ""), "}"), v})
	}
	slices.SortFunc(all, func(a, b count) int { return cmp.Compare(b.n, a.n) })
	const most = 8
	var words []string
	for _, c := range all[:min(most, len(all))] {
		words = append(words, fmt.Sprintf("%s %.0f", c.name, c.n))
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1e3) }

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
