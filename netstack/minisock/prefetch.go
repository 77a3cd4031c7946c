package minisock

import "sync/atomic"

// lookahead is how many flows are looked up side by side: more than a CPU has loads
// in flight, and a batch of the device's.
const lookahead = 32

// Prefetch brings the records of inbound packets to the CPU's caches, all at once,
// for Inbound calls that follow soon. Where there are more flows than the caches
// hold, a packet waits for memory three times, and these are waits of a batch
// together; where there are few, it costs a little and brings nothing. It takes no
// lock and is a hint: what it sees may be gone when it is needed.
func (t *Table) Prefetch(batch []Segment) {
	for len(batch) > 0 {
		n := min(len(batch), lookahead)
		t.prefetch(batch[:n])
		batch = batch[n:]
	}
}

// prefetch goes from the directory to the buckets to the records. In each loop no
// turn waits for the one before, so that their misses overlap.
func (t *Table) prefetch(batch []Segment) {
	var buckets [lookahead]*bucket
	var tags [lookahead]uint32
	var records [lookahead]uint32
	for i := range batch {
		s := &batch[i]
		if len(s.TCP) < tcpHdrLen || len(s.IP) < 20 || s.IP[0]>>4 != 4 && len(s.IP) < 40 {
			continue
		}
		var k key
		k.of(s.IP, s.TCP, false)
		hash := t.seed.flow(&k)
		tags[i] = t.tag(hash)
		buckets[i] = t.shard(hash).index.bucket(tags[i])
	}
	for i := range batch {
		records[i] = ^uint32(0)
		if b := buckets[i]; b != nil {
			records[i] = b.guess(tags[i])
		}
	}
	chunks := t.arena.view.Load()
	if chunks == nil {
		return
	}
	for i := range batch {
		r := records[i]
		if c := r >> chunkShift; uint64(c) < uint64(len(*chunks)) {
			if s := (*chunks)[c].slabs[r/slabRecords%chunkSlabs].Load(); s != nil {
				atomic.LoadUint32(&s[r%slabRecords].gen) // a word of each cache line
				atomic.LoadUint32(&s[r%slabRecords].owner)
			}
		}
	}
}

// guess is the record that tag most likely leads to, or no record's number.
func (b *bucket) guess(tag uint32) uint32 {
	p := home(tag)
	for range 8 { // a cache line of slots
		slot := b.slots[p].Load()
		if slot == 0 || tagOf(slot) == tag {
			return recordOf(slot)
		}
		p = after(p)
	}
	return ^uint32(0)
}
