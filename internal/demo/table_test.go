package demo

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	one := familyResult{
		Name: "IPv4", Connections: 1000, AtOnce: 200, ConnectTime: 250 * time.Millisecond,
		P50: 91 * time.Microsecond, P99: 1234 * time.Microsecond,
		Up: rate{5e9, 2 * time.Second}, Down: rate{3e9, 2 * time.Second},
	}
	two := one
	two.Name, two.Down = "IPv6", rate{}
	var b strings.Builder
	err := printSummary(&b, summary{
		results: results{Families: []familyResult{one, two}, Idle: 1000, Checked: 12_345_678_901},
		memory:  17_040_000, took: 9876 * time.Millisecond, program: "gateway",
	})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/summary.txt"
	if os.Getenv("UPDATE_GOLDEN") != "" { // after a change that was meant
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestNumbers(t *testing.T) {
	for got, want := range map[string]string{
		thousands(0): "0", thousands(999): "999", thousands(1000): "1,000", thousands(1_000_042): "1,000,042",
		size(5): "5 bytes", size(2_500_000): "2.5 MB", size(31_600_000_000): "31.6 GB",
		gbits(rate{}): "0.0 Gbit/s", gbits(rate{1e9, time.Second}): "8.0 Gbit/s",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
