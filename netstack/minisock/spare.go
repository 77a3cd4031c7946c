package minisock

import (
	"sync/atomic"
	"time"
)

// While packets come faster than they are served (Segment.Pressed), the device drops
// whatever there is no room for, segments of connections as well. Half of what a
// flood's SYN costs is the cookie and its write, so cookies are what is saved on until
// the device has run empty. These are still sent:
//
//   - to whoever asks, at a rate that is no flood: many clients at once are none;
//   - to a source that has finished a handshake lately, which nobody can who sends in
//     another's name (Linux keeps a part of its backlog for them: tcp_peer_is_proven);
//   - to any other source, but one in a while, so that a flood of a few thousand
//     sources leaves the way free for newcomers.
//
// All within rates: a flood may come from proven sources, or from all there are.
const (
	freeRate         = 20_000                 // a second, and a tenth of it at once
	provenRate       = 5000                   // the same, for a source
	newcomerInterval = 100 * time.Millisecond // between two for a source
	newcomerRate     = 50_000                 // a second in all: less than a tenth of a processor
	// knownMost is how many sources there is room for, at most: 768 KiB.
	knownMost = 1 << 16
)

// known remembers sources by their hashes, which nobody can aim.
type known struct {
	mask uint64
	// A proven source has one slot, and loses it to the next that is proven with
	// the same one.
	proven []atomic.Uint32
	// When one that is not had its last cookie, in milliseconds. It shares both
	// slots with others; one that has none lately will do.
	newcomers [2][]atomic.Uint32
}

// init makes room for 16 times as many sources as there are half-open connections.
func (s *known) init(backlog int) {
	n := 1024
	for n < 16*backlog && n < knownMost {
		n *= 2
	}
	s.mask = uint64(n - 1)
	s.proven = make([]atomic.Uint32, n)
	for i := range s.newcomers {
		s.newcomers[i] = make([]atomic.Uint32, n)
	}
}

func provenMark(hash uint64) uint32 { return uint32(hash>>32) | 1 } // 0 is nobody's

func (s *known) prove(hash uint64) { s.proven[hash&s.mask].Store(provenMark(hash)) }

func (s *known) isProven(hash uint64) bool {
	return s.proven[hash&s.mask].Load() == provenMark(hash)
}

// admit reports whether a source had no cookie lately, and notes that it has one now.
func (s *known) admit(hash uint64, now time.Duration) bool {
	const lately = uint32(newcomerInterval / time.Millisecond)
	ms := millis(now)
	a, b := &s.newcomers[0][hash&s.mask], &s.newcomers[1][hash>>32&s.mask]
	if ms-a.Load() < lately && ms-b.Load() < lately {
		return false
	}
	a.Store(ms)
	b.Store(ms)
	return true
}

// prove notes that a flow's source is where it says: it knew our number.
func (t *Table) prove(k *key) { t.known.prove(t.seed.address(k.source())) }

// spares reports whether a cookie is to be saved on this SYN.
func (t *Table) spares(g *segment, now time.Duration) bool {
	if !g.pressed || t.freeCookies.allow(now) {
		return false
	}
	src := t.seed.address(g.key.source())
	if t.known.isProven(src) && t.provenCookies.allow(src, now) {
		t.count(SYNProven)
		return false
	}
	return !t.known.admit(src, now) || !t.newcomerCookies.allow(now)
}
