package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// summary is what is told at the end.
type summary struct {
	results
	memory  int64 // what the idle connections added to the gateway's resident set
	took    time.Duration
	program string
}

// rows are the table's lines; a cell for each family.
func (s *summary) rows() [][]string {
	type column = func(f familyResult) string
	var rows [][]string
	add := func(name string, cell column) {
		row := append(make([]string, 0, 1+len(s.Families)), name)
		for _, f := range s.Families {
			row = append(row, cell(f))
		}
		rows = append(rows, row)
	}
	add("", func(f familyResult) string { return f.Name })
	add("connections, none failed", func(f familyResult) string { return thousands(int64(f.Connections)) })
	add("  at once", func(f familyResult) string { return thousands(int64(f.AtOnce)) })
	add("  a second, with 64 KiB each", func(f familyResult) string {
		return thousands(int64(float64(f.Connections) / max(f.ConnectTime.Seconds(), 1e-9)))
	})
	add("bulk up", func(f familyResult) string { return gbits(f.Up) })
	add("bulk down", func(f familyResult) string { return gbits(f.Down) })
	add("round trip of a byte, p50", func(f familyResult) string { return micros(f.P50) })
	add("round trip of a byte, p99", func(f familyResult) string { return micros(f.P99) })
	return rows
}

// printSummary writes the table and what to do next.
func printSummary(w io.Writer, s summary) error {
	var b strings.Builder
	b.WriteByte('\n')
	tw := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, row := range s.rows() {
		// The names are padded here: they alone stand on the left.
		fmt.Fprintf(tw, "%-32s\t%s\t\n", row[0], strings.Join(row[1:], "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	each := int64(0)
	if s.Idle > 0 {
		each = max(0, s.memory) / int64(s.Idle)
	}
	fmt.Fprintf(&b, "\nmemory of an idle connection: %.1f KB of the gateway's resident set (%s were open)\n", float64(each)/1000, thousands(int64(s.Idle)))
	fmt.Fprintf(&b, "bytes checked: %s, none wrong\n", size(s.Checked))
	fmt.Fprintf(&b, "time: %.1f s\n", s.took.Seconds())
	fmt.Fprintf(&b, `
All of it went from kernel sockets in a network namespace of its own through a TUN
device into the gateway's userspace stack, and out through host sockets to a server
on the loopback. Namespace, device and server are gone again.

Next:
  %[1]s exec -- curl https://example.net    any program behind a gateway of its own, without root
  %[1]s run -c examples/direct.yaml         a gateway with a device in this namespace, as root
`, s.program)
	_, err := io.WriteString(w, trimRight(b.String()))
	return err
}

// trimRight takes the blanks off the lines' ends.
func trimRight(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func gbits(r rate) string { return fmt.Sprintf("%.1f Gbit/s", r.bitsPerSecond()/1e9) }

func micros(d time.Duration) string { return fmt.Sprintf("%d us", d.Microseconds()) }

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d bytes", n)
}

// thousands puts a comma between groups of three digits of n, which is not negative.
func thousands(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
