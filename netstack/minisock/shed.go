package minisock

import "time"

// ages is how many epochs are told apart: those quiet for longer, more than an hour,
// count as equals.
const ages = 4096

// EndIdle ends up to most connections that have endpoints: those whose clients have
// sent and acknowledged nothing for longest, answers to probes aside, and nobody's who
// did within least. It looks at the whole table, twice, at some 40 ns a record, and returns
// how many it ended ([Sink].Ended).
func (t *Table) EndIdle(most int, least, now time.Duration) int {
	present := epochs(now)
	young := epochs(least+epoch-1) + 1
	age := func(r *record) int {
		if r.flags&served == 0 {
			return -1
		}
		a := int32(present - r.quiet()) //nolint:gosec // serial arithmetic: a packet may be newer than now
		if a < 0 || uint32(a) < young {
			return -1
		}
		return min(int(a), ages-1)
	}
	var count [ages]int
	t.once(1, func(r *record) bool {
		if a := age(r); a >= 0 {
			count[a]++
		}
		return false
	}, errand{})
	oldest, left := ages-1, most // of those of age oldest, left are ended
	for ; oldest > 0 && count[oldest] < left; oldest-- {
		left -= count[oldest]
	}
	return t.once(most, func(r *record) bool {
		a := age(r)
		if a == oldest && left > 0 {
			left--
			return true
		}
		return a > oldest
	}, errand{shed: true})
}
