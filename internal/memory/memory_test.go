package memory

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPercent: little may grow much, and much by two fifths.
func TestPercent(t *testing.T) {
	for _, c := range []struct {
		alive uint64
		want  int
	}{{0, 100}, {1 << 20, 1000}, {2 << 20, 800}, {16 << 20, 100}, {40 << 20, 40}, {4 << 30, 39}} {
		if got := percent(c.alive); got != c.want && got != c.want+1 {
			t.Errorf("%d bytes alive: %d %%, want %d", c.alive, got, c.want)
		}
	}
}

// TestPressed begins at nine tenths and ends below 85 %.
func TestPressed(t *testing.T) {
	on := false
	for _, c := range []struct {
		used uint64
		want bool
	}{{50, false}, {89, false}, {90, true}, {86, true}, {85, false}, {89, false}, {120, true}} {
		if on = pressed(on, c.used, 100); on != c.want {
			t.Errorf("%d %% used: pressure %v", c.used, on)
		}
	}
}

// TestGroupLimit finds the least limit on the way up.
func TestGroupLimit(t *testing.T) {
	root := t.TempDir()
	list := filepath.Join(root, "list")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("list", "12:cpu:/old\n0::/a/b\n")
	if got := groupLimit(list, root); got != 0 {
		t.Errorf("without a limit: %d", got)
	}
	put("a/b/memory.max", "max\n")
	put("a/memory.max", "1000\n")
	put("memory.max", "5000\n")
	if got := groupLimit(list, root); got != 1000 {
		t.Errorf("%d, want 1000", got)
	}
	put("list", "12:memory:/old\n")
	if got := groupLimit(list, root); got != 0 {
		t.Errorf("version 1: %d, want none", got)
	}
	if got := groupLimit(filepath.Join(root, "none"), root); got != 0 {
		t.Errorf("no list: %d", got)
	}
}

// TestRun sets the pace after a collection, tells of pressure, and undoes all.
func TestRun(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	told, asked := make(chan bool, 1), make(chan bool, 1)
	p := New(1<<20, Users{ // less than any program has
		Pressure:    func(on bool) { told <- on },
		Shed:        func() int { asked <- true; return 0 },
		Connections: func() int { return 0 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if on := <-told; !on {
		t.Error("no pressure above the limit")
	}
	<-asked
	runtime.GC()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("the percentage stayed at %d", got)
	}
}

// TestShare is a quarter of the limit, or of what the machine has.
func TestShare(t *testing.T) {
	if got := New(400<<20, Users{}).Share(); got != 100<<20 {
		t.Errorf("%d of 400 MiB", got)
	}
	if p := (&Pacer{}); p.Share() < 64<<20 {
		t.Errorf("%d of the machine's", p.Share())
	}
}
