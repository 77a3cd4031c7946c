package minisock

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// The arena is the memory of all records. A slab of them is 8 KiB, has no pointers
// and is of a size class of Go's, so the garbage collector never looks inside and
// nothing is lost between. New records go to the lowest slab with room; one that has
// emptied is given back.
const (
	slabRecords = 64 // one bit of a word each
	chunkSlabs  = 64 // pointers to slabs that the directory grows by
	chunkShift  = 12 // slabRecords * chunkSlabs
	// spareRecords are kept when slabs empty, so that a few flows that come and go
	// at a slab's edge do not make and free it each time.
	spareRecords = 2 * slabRecords
)

type slab [slabRecords]record

// chunk is a part of the directory. Its slabs may be read by who owns a record in
// them, under the record's shard lock; all else is the arena's.
type chunk struct {
	slabs [chunkSlabs]atomic.Pointer[slab]
	free  [chunkSlabs]uint64 // a bit a free record; zero too where there is no slab
	open  [chunkSlabs / 64]uint64
	bare  [chunkSlabs / 64]uint64 // slabs not there
}

type arena struct {
	mu     sync.Mutex // the last of all locks
	chunks []*chunk   // replaced, never changed, when it grows
	view   atomic.Pointer[[]*chunk]
	low    int    // no chunk before it has a slab with room
	spare  int    // free records of all slabs
	gen    uint32 // of the record made last
}

// take returns a record's number and generation, and the chunks as they are.
func (a *arena) take() (i, gen uint32, chunks []*chunk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, s := a.room()
	ch := a.chunks[c]
	r := bits.TrailingZeros64(ch.free[s])
	ch.free[s] &^= 1 << r
	if ch.free[s] == 0 {
		ch.open[s/64] &^= 1 << (s % 64)
	}
	a.spare--
	if a.gen++; a.gen == 0 { // a Handle's zero value is no record's
		a.gen = 1
	}
	i = uint32(c<<chunkShift | s*slabRecords | r) //nolint:gosec // memory ends long before 2^32 records
	return i, a.gen, a.chunks
}

// room finds a slab with a free record, the lowest one, or makes one.
func (a *arena) room() (c, s int) {
	for c = a.low; c < len(a.chunks); c++ {
		if s, ok := first(&a.chunks[c].open); ok {
			a.low = c
			return c, s
		}
	}
	for c, ch := range a.chunks {
		if s, ok := first(&ch.bare); ok {
			a.grow(ch, s)
			a.low = c
			return c, s
		}
	}
	ch := &chunk{bare: [1]uint64{^uint64(0)}}
	c = len(a.chunks)
	chunks := append(a.chunks[:c:c], ch) // others read the old array
	a.chunks = chunks
	a.view.Store(&chunks)
	a.grow(ch, 0)
	a.low = c
	return c, 0
}

func first(set *[chunkSlabs / 64]uint64) (int, bool) {
	for w, word := range set {
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word), true
		}
	}
	return 0, false
}

func (a *arena) grow(ch *chunk, s int) {
	ch.slabs[s].Store(new(slab))
	ch.free[s] = ^uint64(0)
	ch.bare[s/64] &^= 1 << (s % 64)
	ch.open[s/64] |= 1 << (s % 64)
	a.spare += slabRecords
}

// give takes a record back. Nobody may read it afterwards.
func (a *arena) give(i uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, s, r := int(i>>chunkShift), int(i/slabRecords%chunkSlabs), i%slabRecords
	ch := a.chunks[c]
	ch.free[s] |= 1 << r
	ch.open[s/64] |= 1 << (s % 64)
	a.low = min(a.low, c)
	a.spare++
	if ch.free[s] == ^uint64(0) && a.spare >= slabRecords+spareRecords {
		ch.slabs[s].Store(nil)
		ch.free[s] = 0
		ch.open[s/64] &^= 1 << (s % 64)
		ch.bare[s/64] |= 1 << (s % 64)
		a.spare -= slabRecords
	}
}
