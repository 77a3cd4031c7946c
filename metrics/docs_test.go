package metrics

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack/link"
)

var update = flag.Bool("update", false, "write docs/metrics.md instead of comparing it")

const (
	docsPath  = "../docs/metrics.md"
	docsBegin = "<!-- metrics: made from metrics/*.go by `go test ./metrics -run Docs -update` -->\n"
	docsEnd   = "<!-- end of metrics -->\n"
)

// TestDocs holds docs/metrics.md against what a scrape shows.
func TestDocs(t *testing.T) {
	src, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(src), docsBegin)
	_, after, ok2 := strings.Cut(rest, docsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks between which the metrics stand:\n%s%s", docsPath, docsBegin, docsEnd)
	}
	want := before + docsBegin + metricDocs(ours(t, New(sources()).reg)) + docsEnd + after
	if want == string(src) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what a scrape shows; run go test ./metrics -run Docs -update", docsPath)
	}
	if err := os.WriteFile(docsPath, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocsExplainReasons: a reason that is not explained helps nobody.
func TestDocsExplainReasons(t *testing.T) {
	src, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for r := range link.NumDropReasons {
		reasons = append(reasons, r.String())
	}
	for _, r := range flow.CloseReasons() {
		reasons = append(reasons, r.String())
	}
	for _, r := range reasons {
		if !strings.Contains(string(src), "\n| `"+r+"` | ") {
			t.Errorf("%s has no row for the reason %s", docsPath, r)
		}
	}
}

// groups are the parts of docs/metrics.md, by how a name begins.
var groups = [][2]string{
	{"tungate_device_", "The device"},
	{"tungate_tcp_", "TCP in the stack"},
	{"tungate_udp_", "UDP in the stack"},
	{"tungate_icmp_", "ICMP in the stack"},
	{"tungate_proxy_", "Proxy"},
	{"tungate_", "Program"},
}

func metricDocs(families map[string]*dto.MetricFamily) string {
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", g[1])
		for _, name := range slices.Sorted(maps.Keys(families)) {
			if !strings.HasPrefix(name, g[0]) {
				continue
			}
			f := families[name]
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), labelDocs(f), f.GetHelp())
			delete(families, name)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// labelDocs lists each label with its values; those of queue and build_info
// depend on the gateway.
func labelDocs(f *dto.MetricFamily) string {
	var names []string
	values := map[string][]string{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			if _, ok := values[l.GetName()]; !ok {
				names = append(names, l.GetName())
			}
			if !slices.Contains(values[l.GetName()], l.GetValue()) {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
	}
	for i, n := range names {
		slices.SortFunc(values[n], cmp.Compare[string])
		switch {
		case n == "queue":
			names[i] = "`queue`: from 0"
		case f.GetName() == "tungate_build_info":
			names[i] = "`" + n + "`"
		default:
			names[i] = "`" + n + "`: " + strings.Join(values[n], ", ")
		}
	}
	return strings.Join(names, "; ")
}
