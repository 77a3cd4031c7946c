package minisock

import "sync/atomic"

// cursor is a place in the order of hashes. In that order the whole table can be
// walked through, a bucket at a time, while records come and go and buckets split and
// join: who stays in the table meanwhile is seen at least once, and nobody is kept.
type cursor struct {
	shard int
	tag   uint64 // the first of those to come, up to 1<<32
}

// round is how far it is once through the table, of one shard.
const round = int64(1) << 32

// errand is what a walk is for.
type errand struct {
	present uint32 // epoch
	shed    bool   // who is due is ended, not probed
}

// visit shows due each record of the bucket at c, whose shard is locked, and then does
// the errand for those that it said yes to. If these were more than a batch, c stays
// where it is, so whom the errand was done for must not be due again. It returns how
// far c went, and how many were served.
func (t *Table) visit(c *cursor, due func(*record) bool, e errand) (span int64, served int) {
	var found [tickBatch]uint32
	var out [tickBatch]outcome
	sh := &t.shards[c.shard]
	sh.mu.Lock()
	b, end := sh.index.bucketAt(c.tag)
	numbers, n := b.records()
	for _, i := range numbers[:n] {
		atomic.LoadUint32(&sh.at(i).owner) // as Prefetch does: no turn waits for the one before
	}
	more := false
	for _, i := range numbers[:n] {
		if more = served == tickBatch; more {
			break
		}
		if due(sh.at(i)) {
			found[served] = i
			served++
		}
	}
	for n := range served { // not before: it may change the bucket
		p := place{record: sh.at(found[n]), t: t, sh: sh, i: found[n]}
		k := p.flow()
		p.hash = t.seed.flow(&k)
		if e.shed {
			p.cut(Shed, &out[n])
		} else {
			p.probe(e.present, &out[n])
		}
	}
	sh.mu.Unlock()
	for n := range served {
		t.finish(&out[n])
	}
	if more {
		return 0, served
	}
	span = int64(end - c.tag)
	if c.tag = end; end == uint64(round) {
		c.shard, c.tag = (c.shard+1)%len(t.shards), 0
	}
	return span, served
}

// records are the numbers of a bucket's n records.
func (b *bucket) records() (numbers [bucketSlots]uint32, n int) {
	for i := range b.slots {
		if slot := b.slots[i].Load(); slot != 0 {
			numbers[n] = recordOf(slot)
			n++
		}
	}
	return numbers, n
}

// bucketAt returns the bucket of a tag and the first tag behind it.
func (x *index) bucketAt(tag uint64) (b *bucket, end uint64) {
	b = x.bucket(uint32(tag & 0xffffffff))
	width := uint64(1) << (32 - b.depth)
	return b, (tag/width + 1) * width
}

// once walks through the whole table, or until most were served, and returns how many.
func (t *Table) once(most int, due func(*record) bool, e errand) (all int) {
	var c cursor
	left := int64(len(t.shards)) * round
	for left > 0 && all < most {
		span, served := t.visit(&c, due, e)
		left -= span
		all += served
	}
	return all
}
