package netstack_test

import (
	crand "crypto/rand"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	gvrand "gvisor.dev/gvisor/pkg/rand"
)

// TestSimulation lets clients of another stack meet this one over a network that
// loses, repeats, delays and spoils packets, in a time of its own, once a seed. Bytes
// come out as they went in, or both ends are told that they did not; and when all is
// over nothing is left of it: no record, endpoint, goroutine or packet buffer.
//
// SIM_SEEDS is how many seeds, or which: 17-17. SIM_TRACE prints every packet. A seed
// makes the same run again, packet by packet: random numbers come from it, one
// goroutine runs at a time, and time stands still until none has anything to do. What
// is left to chance is the order of gVisor's maps, which only matters when a stack is
// closed with endpoints in it.
func TestSimulation(t *testing.T) {
	from, to := simSeeds(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // see settler
	// A goroutine that helps to collect looks like one that waits.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	for seed := from; seed <= to && !t.Failed(); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			t.Fatalf("make simulate SEEDS=%d-%d; TRACE=1 shows every packet", seed, seed)
		}
	}
}

// simSeeds returns the first and the last seed.
func simSeeds(t *testing.T) (from, to uint64) {
	t.Helper()
	v := os.Getenv("SIM_SEEDS")
	if v == "" {
		v = "50"
	}
	a, b, ok := strings.Cut(v, "-")
	n, err := strconv.ParseUint(a, 10, 64)
	if ok && err == nil {
		from = n
		to, err = strconv.ParseUint(b, 10, 64)
	} else {
		to = n - 1
	}
	if err != nil {
		t.Fatalf("SIM_SEEDS: %v", err)
	}
	return from, to
}

func simulate(t *testing.T, seed uint64) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	defer func(r io.Reader) { gvrand.Reader = r }(gvrand.Reader)
	gvrand.Reader = crand.Reader
	runtime.GC()
	goroutines := runtime.NumGoroutine()
	s := newSim(t, seed)
	stop := s.start()
	for i := range 4 + s.rnd.IntN(20) {
		c := newScript(s.rnd, fmt.Sprintf("c%d", i), newFlow(s.rnd, i), s.wire.faults.reorder == 0)
		s.later(c.start, func() { s.begin(c, 1) })
		for each := c; each != nil; each = each.again {
			s.scripts = append(s.scripts, each)
		}
	}
	drained := s.run(time.Hour, func() bool { return s.over() && s.stack.Leftovers() == "" })
	s.judge(drained)
	stop()
	s.run(s.clock.elapsed()+time.Hour, func() bool { return false })
	if n := runtime.NumGoroutine(); n > goroutines {
		s.fail("%d goroutines are left", n-goroutines)
	}
	if what := leakedPackets(); what != "" {
		s.fail("%.300s ...", what)
	}
	for _, f := range s.bad {
		t.Error(f)
	}
	if t.Failed() {
		t.Logf("%+v", s.wire.faults)
		t.Logf("%+v", s.wire.count)
	}
}

// over reports whether all applications are.
func (s *sim) over() bool {
	for _, c := range s.scripts {
		if !c.over() {
			return false
		}
	}
	return true
}
