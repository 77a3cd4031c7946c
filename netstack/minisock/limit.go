package minisock

import (
	"sync/atomic"
	"time"
)

// limiter lets so many things a second happen, and as many at once after a pause of
// a tenth of a second: a token bucket, kept as the time when it would be full (GCRA,
// ITU-T I.371). It is one word and needs no lock.
type limiter struct {
	full     atomic.Int64 // nanoseconds of the table's clock
	interval int64
}

// burstTime is how much a bucket holds.
const burstTime = int64(100 * time.Millisecond)

func newLimiter(rate int) limiter { return limiter{interval: int64(time.Second) / int64(rate)} }

func (l *limiter) allow(now time.Duration) bool { return take(&l.full, l.interval, now) }

func take(full *atomic.Int64, interval int64, now time.Duration) bool {
	for {
		old := full.Load()
		next := max(old, int64(now)) + interval
		if next > int64(now)+max(burstTime, interval) {
			return false
		}
		if full.CompareAndSwap(old, next) {
			return true
		}
	}
}

// sourceBuckets is how many buckets sources share, by a hash that they cannot aim.
const sourceBuckets = 128

// sourceLimiter is a limiter for each source.
type sourceLimiter struct {
	full     [sourceBuckets]atomic.Int64
	interval int64
}

func newSourceLimiter(rate int) sourceLimiter {
	return sourceLimiter{interval: int64(time.Second) / int64(rate)}
}

func (l *sourceLimiter) allow(hash uint64, now time.Duration) bool {
	return take(&l.full[hash%sourceBuckets], l.interval, now)
}

// sketch counts by hash, in two rows of counters. What it says of a key is the less
// of its two, never too little, and too much only if others share both (Cormode and
// Muthukrishnan's count-min).
type sketch struct {
	rows [2][]atomic.Int32
	mask uint64
}

// init makes room for so many counted things that they are 16 in a counter.
func (s *sketch) init(most int) {
	n := 64
	for n < most/16 && n < 1<<16 {
		n *= 2
	}
	s.mask = uint64(n - 1)
	for i := range s.rows {
		s.rows[i] = make([]atomic.Int32, n)
	}
}

func (s *sketch) counters(hash uint64) (a, b *atomic.Int32) {
	return &s.rows[0][hash&s.mask], &s.rows[1][hash>>32&s.mask]
}

// enter counts one more, unless that would be more than most.
func (s *sketch) enter(hash uint64, most int) bool {
	a, b := s.counters(hash)
	if int(min(a.Load(), b.Load())) >= most { // a flood's; to look is cheaper than to add
		return false
	}
	if int(min(a.Add(1), b.Add(1))) <= most {
		return true
	}
	s.leave(hash)
	return false
}

func (s *sketch) leave(hash uint64) {
	a, b := s.counters(hash)
	a.Add(-1)
	b.Add(-1)
}
