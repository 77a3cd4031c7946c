package minisock

import "sync/atomic"

// The index of a shard finds a record by the hash of its key. It is an extendible
// hash table (Fagin and others, 1979): buckets of 512 bytes, and a directory that the
// upper bits of the hash lead through. A bucket that is full splits in two, one that
// is nearly empty joins its buddy, and the others never notice. So the index grows
// and shrinks in steps of one bucket, at about 14 bytes a record at every size. Only
// the directory doubles at once, 8 bytes for 35 records.
const (
	bucketSlots = 63 // and a word for the header: 512 bytes, a size class of Go's
	bucketFull  = 54 // six in seven: then 25 slots are looked at for what is not there, 6 on average
	bucketJoin  = 20 // two buckets with this many together are one
	maxDepth    = 20 // of the directory, of one shard: room for 20 million records
)

// bucket is an open-addressed table of slots: a tag of the hash in the upper half,
// the record's number plus one in the lower. An empty slot is 0.
type bucket struct {
	n, depth uint32 // used slots; bits of the tag that all of them share
	slots    [bucketSlots]atomic.Uint64
}

// directory leads to the buckets. A bucket of less depth has several entries.
type directory struct {
	depth   uint32
	buckets []atomic.Pointer[bucket] // 1 << depth
}

// home is the slot where the search for a tag begins. It hangs on the tag's lower
// bits, the directory on the upper ones.
func home(tag uint32) uint32 { return (tag & 0xffff) * bucketSlots >> 16 }

func after(p uint32) uint32 {
	if p++; p < bucketSlots {
		return p
	}
	return 0
}

func slotOf(tag, i uint32) uint64 { return uint64(tag)<<32 | uint64(i+1) }

func tagOf(slot uint64) uint32 { return uint32(slot >> 32) }

func recordOf(slot uint64) uint32 { return uint32(slot&0xffffffff) - 1 }

func (b *bucket) put(slot uint64) {
	p := home(tagOf(slot))
	for b.slots[p].Load() != 0 {
		p = after(p)
	}
	b.slots[p].Store(slot)
	b.n++
}

// remove closes the gap behind the slot instead of marking it, so that a storm of
// closes leaves no long searches.
func (b *bucket) remove(slot uint64) {
	gap := home(tagOf(slot))
	for b.slots[gap].Load() != slot {
		gap = after(gap)
	}
	for p := after(gap); ; p = after(p) {
		other := b.slots[p].Load()
		if other == 0 {
			break
		}
		if distance(home(tagOf(other)), p) >= distance(gap, p) {
			b.slots[gap].Store(other)
			gap = p
		}
	}
	b.slots[gap].Store(0)
	b.n--
}

// distance is the way from a slot to a later one, around the end.
func distance(from, to uint32) uint32 {
	if to >= from {
		return to - from
	}
	return to + bucketSlots - from
}

// index is the directory and its buckets. Only who holds the shard's lock changes
// it, and nobody else goes by what it says: the atomic values are for Prefetch, which
// looks without the lock.
type index struct {
	dir     atomic.Pointer[directory]
	deepest uint32 // buckets as deep as the directory
}

func newDirectory(depth uint32) *directory {
	return &directory{depth: depth, buckets: make([]atomic.Pointer[bucket], 1<<depth)}
}

func (x *index) init() {
	d := newDirectory(0)
	d.buckets[0].Store(new(bucket))
	x.dir.Store(d)
	x.deepest = 1
}

func (d *directory) bucket(tag uint32) *bucket {
	return d.buckets[uint64(tag)>>(32-d.depth)].Load()
}

func (x *index) bucket(tag uint32) *bucket { return x.dir.Load().bucket(tag) }

// add puts a record in. False: more records than a shard can have share their hash.
func (x *index) add(tag, i uint32) bool {
	b := x.bucket(tag)
	for b.n >= bucketFull {
		if !x.split(b, tag) {
			if b.n >= bucketSlots-1 { // one stays empty, to end each search
				return false
			}
			break
		}
		b = x.bucket(tag)
	}
	b.put(slotOf(tag, i))
	return true
}

// has reports whether record i is in under tag.
func (x *index) has(tag, i uint32) bool {
	b, slot := x.bucket(tag), slotOf(tag, i)
	for p := home(tag); ; p = after(p) {
		switch b.slots[p].Load() {
		case 0:
			return false
		case slot:
			return true
		}
	}
}

// remove takes out a record that is in.
func (x *index) remove(tag, i uint32) {
	b := x.bucket(tag)
	b.remove(slotOf(tag, i))
	if b.n <= bucketJoin/2 && b.depth > 0 {
		x.join(b, tag)
	}
}

// split halves the bucket that tag leads to; what was in it is told apart by one
// more bit. False if the directory is as deep as it may be.
func (x *index) split(b *bucket, tag uint32) bool {
	d := x.dir.Load()
	if b.depth == d.depth {
		if d.depth == maxDepth {
			return false
		}
		d = x.double(d)
	}
	lower, upper := &bucket{depth: b.depth + 1}, &bucket{depth: b.depth + 1}
	for i := range b.slots {
		slot := b.slots[i].Load()
		switch {
		case slot == 0:
		case tagOf(slot)>>(32-lower.depth)&1 != 0:
			upper.put(slot)
		default:
			lower.put(slot)
		}
	}
	first, n := d.span(tag, b.depth)
	d.lead(lower, first, n/2)
	d.lead(upper, first+n/2, n/2)
	if lower.depth == d.depth {
		x.deepest += 2
	}
	return true
}

// span is the part of the directory that leads to the bucket of tag at a depth.
func (d *directory) span(tag, depth uint32) (first, n uint64) {
	n = 1 << (d.depth - depth)
	return uint64(tag) >> (32 - depth) * n, n
}

// lead makes n entries lead to b.
func (d *directory) lead(b *bucket, first, n uint64) {
	for i := first; i < first+n; i++ {
		d.buckets[i].Store(b)
	}
}

func (x *index) double(old *directory) *directory {
	d := newDirectory(old.depth + 1)
	for i := range d.buckets {
		d.buckets[i].Store(old.buckets[i/2].Load())
	}
	x.dir.Store(d)
	x.deepest = 0
	return d
}

// join takes the bucket's buddy in, if both together are small.
func (x *index) join(b *bucket, tag uint32) {
	buddy := x.bucket(tag ^ 1<<(32-b.depth))
	if buddy.depth != b.depth || b.n+buddy.n > bucketJoin {
		return
	}
	for i := range buddy.slots {
		if slot := buddy.slots[i].Load(); slot != 0 {
			b.put(slot)
		}
	}
	d := x.dir.Load()
	if b.depth == d.depth {
		x.deepest -= 2
	}
	b.depth--
	first, n := d.span(tag, b.depth)
	d.lead(b, first, n)
	for x.deepest == 0 && x.dir.Load().depth > 0 {
		x.halve()
	}
}

// halve shrinks a directory that is deeper than any bucket.
func (x *index) halve() {
	old := x.dir.Load()
	d := newDirectory(old.depth - 1)
	for i := range d.buckets {
		b := old.buckets[2*i].Load()
		d.buckets[i].Store(b)
		if b.depth == d.depth {
			x.deepest++
		}
	}
	x.dir.Store(d)
}
