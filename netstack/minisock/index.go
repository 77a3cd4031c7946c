package minisock

// The index of a shard finds a record by the hash of its key. It is an extendible
// hash table (Fagin and others, 1979): buckets of 512 bytes, and a directory that the
// upper bits of the hash lead through. A bucket that is full splits in two, one that
// is nearly empty joins its buddy, and the others never notice. So the index grows
// and shrinks in steps of one bucket, at about 14 bytes a record at every size. Only
// the directory doubles at once, 8 bytes for 35 records.
const (
	bucketSlots = 63 // and a word for the header: 512 bytes, a size class of Go's
	bucketFull  = 54 // six in seven: then 26 slots are looked at for what is not there, 5 on average
	bucketJoin  = 20 // two buckets with this many together are one
	maxDepth    = 24 // of the directory, of one shard
)

// bucket is an open-addressed table of slots: a tag of the hash in the upper half,
// the record's number plus one in the lower. An empty slot is 0.
type bucket struct {
	n, depth uint32 // used slots; bits of the tag that all of them share
	slots    [bucketSlots]uint64
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
	for b.slots[p] != 0 {
		p = after(p)
	}
	b.slots[p] = slot
	b.n++
}

// remove closes the gap behind the slot instead of marking it, so that a storm of
// closes leaves no long searches.
func (b *bucket) remove(slot uint64) {
	gap := home(tagOf(slot))
	for b.slots[gap] != slot {
		gap = after(gap)
	}
	for p := after(gap); b.slots[p] != 0; p = after(p) {
		if distance(home(tagOf(b.slots[p])), p) >= distance(gap, p) {
			b.slots[gap] = b.slots[p]
			gap = p
		}
	}
	b.slots[gap] = 0
	b.n--
}

// distance is the way from a slot to a later one, around the end.
func distance(from, to uint32) uint32 {
	if to >= from {
		return to - from
	}
	return to + bucketSlots - from
}

// index is the directory and its buckets.
type index struct {
	dir     []*bucket // 1<<depth entries; a bucket of less depth has several
	depth   uint32
	deepest uint32 // buckets as deep as the directory
}

func (x *index) init() {
	x.dir = []*bucket{{}}
	x.depth, x.deepest = 0, 1
}

func (x *index) bucket(tag uint32) *bucket { return x.dir[uint64(tag)>>(32-x.depth)] }

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
	for p := home(tag); b.slots[p] != 0; p = after(p) {
		if b.slots[p] == slot {
			return true
		}
	}
	return false
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
	if b.depth == x.depth {
		if x.depth == maxDepth {
			return false
		}
		x.double()
	}
	old := b.slots
	b.slots, b.n = [bucketSlots]uint64{}, 0
	upper := &bucket{depth: b.depth + 1}
	b.depth++
	for _, slot := range old {
		switch {
		case slot == 0:
		case tagOf(slot)>>(32-b.depth)&1 != 0:
			upper.put(slot)
		default:
			b.put(slot)
		}
	}
	first, n := x.span(tag, b.depth-1)
	for j := first + n/2; j < first+n; j++ {
		x.dir[j] = upper
	}
	if b.depth == x.depth {
		x.deepest += 2
	}
	return true
}

// span is the part of the directory that leads to the bucket of tag at a depth.
func (x *index) span(tag, depth uint32) (first, n uint64) {
	n = 1 << (x.depth - depth)
	return uint64(tag) >> (32 - depth) * n, n
}

func (x *index) double() {
	dir := make([]*bucket, 2*len(x.dir))
	for j, b := range x.dir {
		dir[2*j], dir[2*j+1] = b, b
	}
	x.dir = dir
	x.depth++
	x.deepest = 0
}

// join takes the bucket's buddy in, if both together are small.
func (x *index) join(b *bucket, tag uint32) {
	buddy := x.bucket(tag ^ 1<<(32-b.depth))
	if buddy.depth != b.depth || b.n+buddy.n > bucketJoin {
		return
	}
	for _, slot := range buddy.slots {
		if slot != 0 {
			b.put(slot)
		}
	}
	if b.depth == x.depth {
		x.deepest -= 2
	}
	b.depth--
	first, n := x.span(tag, b.depth)
	for j := first; j < first+n; j++ {
		x.dir[j] = b
	}
	if x.deepest == 0 {
		x.halve()
	}
}

// halve shrinks a directory that is deeper than any bucket.
func (x *index) halve() {
	dir := make([]*bucket, len(x.dir)/2)
	x.depth--
	for j := range dir {
		dir[j] = x.dir[2*j]
		if dir[j].depth == x.depth {
			x.deepest++
		}
	}
	x.dir = dir
	if x.deepest == 0 && x.depth > 0 {
		x.halve()
	}
}
