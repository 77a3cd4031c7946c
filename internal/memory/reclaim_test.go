package memory

import "testing"

func TestReclaimer(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		frees  []bool // after each count
	}{
		{"nothing happens", []int{0, 0, 0}, []bool{false, false, false}},
		{"few come and end", []int{reclaimLeast - 1, reclaimLeast - 1, 0, 0}, []bool{false, false, false, false}},
		{"less than half end", []int{30_000, 30_000, 16_000, 16_000}, []bool{false, true, false, false}},
		{"all end at once, once", []int{100_000, 0, 0, 0}, []bool{false, false, true, false}},
		{"not while they are ending", []int{100_000, 40_000, 20_000, 19_990, 19_980}, []bool{false, false, false, true, false}},
		{"again after they came back", []int{100_000, 0, 0, 100_000, 0, 0}, []bool{false, false, true, false, false, true}},
		{"churn", []int{10_000, 10_500, 9_900, 10_100}, []bool{false, true, false, false}},
		{"they come and stay", []int{15_000, 15_000, 15_000}, []bool{false, true, false}},
		{"not while they are coming", []int{15_000, 20_000, 30_000, 30_010, 30_010}, []bool{false, false, false, true, false}},
		{"a half more come", []int{20_000, 20_000, 30_000, 30_000}, []bool{false, true, false, false}},
		{"twice as many come", []int{20_000, 20_000, 40_000, 40_000}, []bool{false, true, false, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, frees := 0, 0
			r := reclaimer{open: func() int { return now }, free: func() { frees++ }}
			for i, n := range c.counts {
				before := frees
				now = n
				r.count()
				if freed := frees > before; freed != c.frees[i] {
					t.Errorf("count %d, %d connections: freed %v", i, n, freed)
				}
			}
		})
	}
}
