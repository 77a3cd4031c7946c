package gateway

import (
	"runtime"
	"testing"
)

// TestProcessors: one of two while little is alive, both from 96 MiB on and until it
// is 64; and nothing that is not ours to set.
func TestProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var p processors
	p.begin()
	for _, step := range []struct {
		mib  uint64
		want int
	}{{0, 1}, {95, 1}, {96, 2}, {1000, 2}, {65, 2}, {64, 1}, {80, 1}, {200, 2}} {
		p.alive(step.mib << 20)
		if got := runtime.GOMAXPROCS(0); got != step.want {
			t.Errorf("%d MiB alive: %d processors, want %d", step.mib, got, step.want)
		}
	}
	p.end()
	p.alive(0)
	if got := runtime.GOMAXPROCS(0); got != 2 {
		t.Errorf("%d processors after the end", got)
	}
	for _, n := range []int{1, 4} {
		runtime.GOMAXPROCS(n)
		p.begin()
		p.alive(0)
		p.alive(1 << 30)
		p.end()
		if got := runtime.GOMAXPROCS(0); got != n {
			t.Errorf("%d processors of %d", got, n)
		}
	}
	runtime.GOMAXPROCS(2)
	t.Setenv("GOMAXPROCS", "2")
	p.begin()
	if got := runtime.GOMAXPROCS(0); got != 2 {
		t.Errorf("GOMAXPROCS=2 is not kept: %d", got)
	}
}
