package minisock

import (
	"sync/atomic"
	"time"
)

// While the device brings packets faster than they can be served, most of a packet's
// cost is the answer to it: a cookie and its write. So cookies are what is saved on,
// in favour of reading, or the device would drop whatever comes, established
// connections' segments as well. Who has finished a handshake before has answers
// first; that is Linux's tcp_peer_is_proven, which has the last quarter of a backlog.
const (
	// provenSlots is how many sources are known, at most: 256 KiB.
	provenSlots = 1 << 16
	// provenRate is how many cookies a second a proven source has while the table
	// is pressed, before it must wait its turn as well: it may be a flood's.
	provenRate = 1000
	// unprovenTurn is which of the other SYNs is answered all the same, so that no
	// flood shuts newcomers out: an eighth costs far less than all.
	unprovenTurn = 8
)

// proven remembers sources by their hashes, which nobody can aim. Each has one slot,
// and loses it to the next that is proven with the same one.
type proven struct{ slots [provenSlots]atomic.Uint32 }

func provenMark(hash uint64) uint32 { return uint32(hash>>32) | 1 } // 0 is nobody's

func (v *proven) note(hash uint64) { v.slots[hash%provenSlots].Store(provenMark(hash)) }

func (v *proven) has(hash uint64) bool { return v.slots[hash%provenSlots].Load() == provenMark(hash) }

// prove notes that the flow's source is where it says: it knew our number.
func (t *Table) prove(k *key) { t.proven.note(t.seed.address(k.source())) }

// spares reports whether a cookie is to be saved on this SYN.
func (t *Table) spares(g *segment, now time.Duration) bool {
	if !g.pressed {
		return false
	}
	src := t.seed.address(g.key.source())
	if t.proven.has(src) && t.provenAnswers.allow(src, now) {
		t.count(SYNProven)
		return false
	}
	return t.turn.Add(1)%unprovenTurn != 0
}
