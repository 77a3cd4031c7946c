package minisock

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Sink is what a Table tells its owner without being asked. No lock is held during
// a call, so every method of the Table may be called from it.
type Sink interface {
	// Emit sends a packet to the client: whole, with its checksums. The bytes
	// are valid during the call only.
	Emit(packet []byte, queue uint16)
	// Gone says that a record which its owner was to do something with (Dial,
	// Create) has ended by itself: by the client's RST, an ICMP error or a timer.
	Gone(h Handle, owner uint32, why Cause)
	// Ended says that a connection with an endpoint has been ended from here, its
	// client reset: because that was silent (ClientSilent), or by EndIdle (Shed).
	// The endpoint is to be ended too; what it still sends is kept in.
	Ended(client, destination netip.AddrPort, why Cause)
	// Stalled says that the endpoint of a connection has stopped to send again what
	// the client has not acknowledged. It is to be told that its packets are too big,
	// mtu without IP's header, which makes it send.
	Stalled(client, destination netip.AddrPort, mtu uint16)
}

// Table holds the records. All methods may be called by any goroutine. now is the
// time since a moment that the caller chose, by a clock that does not go back; calls
// of one batch may share it.
type Table struct {
	o      Options // defaults filled in
	waits  waits
	sink   Sink
	arena  arena
	shards []shard
	shift  uint // of a hash, to its shard

	seed    seed
	isnKey  secret
	tsKey   secret
	cookies cookies

	local    atomic.Uint64 // a packed Local
	refusing atomic.Bool

	counts   [NumCauses]atomic.Uint64
	states   [NumStates]atomic.Int64
	halfOpen atomic.Int64
	orphans  atomic.Int64
	closed   atomic.Int64 // TimeWait and Linger
	records  atomic.Int64

	sources, destinations sketch
	resets                limiter
	sourceResets          sourceLimiter
	challenges            limiter
	known                 known
	provenCookies         sourceLimiter
	newcomerCookies       limiter
	freeCookies           limiter

	scratch sync.Pool // of *packet
	swept   atomic.Uint32
	keeper  keeper
}

// shard is a part of the table, with the lock of all its flows. Its list heads are
// the timers': each list holds records that wait equally long, so it is sorted.
type shard struct {
	mu     sync.Mutex
	index  index
	chunks []*chunk // the arena's, as of the last record taken
	lists  [numTimers]list
	_      [24]byte // 192 bytes: no cache line with two locks
}

// New returns an empty table, or o.Validate's error. It starts nothing.
func New(o Options, sink Sink) (*Table, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	t := &Table{
		o: o, sink: sink, waits: newWaits(&o),
		shards: make([]shard, o.Shards), shift: uint(64 - bits.TrailingZeros(uint(o.Shards))),
		resets: newLimiter(o.ResetRate), challenges: newLimiter(o.ChallengeRate),
		sourceResets:  newSourceLimiter(max(1, o.ResetRate/8)),
		provenCookies: newSourceLimiter(provenRate), newcomerCookies: newLimiter(newcomerRate), freeCookies: newLimiter(freeRate),
	}
	t.scratch.New = func() any { return new(packet) }
	for i := range t.shards {
		t.shards[i].index.init()
	}
	for _, word := range [][]uint64{t.seed[:], t.isnKey[:], t.tsKey[:]} {
		random(word)
	}
	t.sources.init(o.Backlog)
	t.destinations.init(o.Backlog)
	t.known.init(o.Backlog)
	t.SetLocal(o.Local)
	t.keeper.init(&t.o)
	return t, nil
}

// random fills words with what nobody can guess.
func random(words []uint64) {
	var b [8]byte
	for i := range words {
		_, _ = rand.Read(b[:]) // it never fails: crypto/rand
		words[i] = binary.NativeEndian.Uint64(b[:])
	}
}

// SetLocal changes what new handshakes announce: the stack's MTU or buffers changed.
func (t *Table) SetLocal(l Local) {
	l = l.withDefaults()
	t.local.Store(uint64(l.MSS4)<<48 | uint64(l.MSS6)<<32 | uint64(l.Window)<<16 | uint64(l.WindowScale&15))
}

func (t *Table) announced() Local {
	v := t.local.Load()
	return Local{MSS4: uint16(v >> 48), MSS6: uint16(v >> 32 & 0xffff), Window: uint16(v >> 16 & 0xffff), WindowScale: uint8(v & 15)}
}

// SetRefusing makes the table answer new flows with RST, or stop to: while the
// gateway drains, or sheds load.
func (t *Table) SetRefusing(on bool) { t.refusing.Store(on) }

func (t *Table) count(c Cause) { t.counts[c].Add(1) }

// millis is now as records have it; it wraps after 49 days.
func millis(now time.Duration) uint32 { return uint32(uint64(now/time.Millisecond) & 0xffffffff) }

// epoch is a second, nearly, and found without a division.
const epoch = time.Duration(1 << 30)

func epochs(now time.Duration) uint32 { return uint32(uint64(now/epoch) & 0xffffffff) }

func (t *Table) shard(hash uint64) *shard { return &t.shards[hash>>t.shift] }

// tag is what a shard's index knows of a hash.
func (t *Table) tag(hash uint64) uint32 { return uint32(hash << (64 - t.shift) >> 32) }

// at is a record of this shard.
func (sh *shard) at(i uint32) *record {
	return &sh.chunks[i>>chunkShift].slabs[i/slabRecords%chunkSlabs].Load()[i%slabRecords]
}

// find returns the record of a flow, or nil.
func (sh *shard) find(tag uint32, k *key) (uint32, *record) {
	b := sh.index.bucket(tag)
	for p := home(tag); ; p = after(p) {
		slot := b.slots[p].Load()
		if slot == 0 {
			return 0, nil
		}
		if tagOf(slot) != tag {
			continue
		}
		i := recordOf(slot)
		if r := sh.at(i); r.is(k) {
			return i, r
		}
	}
}

// place is a record and where it is: all that a change of it needs. Its shard is
// locked for as long as it is used.
type place struct {
	*record
	t    *Table
	sh   *shard
	hash uint64
	i    uint32
}

func (p *place) handle() Handle { return Handle{hash: p.hash, index: p.i, gen: p.gen} }

// lookup locks the shard of a flow and finds its record, if there is one. It fills p
// in place, since a copy would be read while it is still being written.
func (p *place) lookup(t *Table, k *key) {
	p.t, p.hash = t, t.seed.flow(k)
	p.sh = t.shard(p.hash)
	p.sh.mu.Lock()
	p.i, p.record = p.sh.find(t.tag(p.hash), k)
}

// resolve locks a handle's shard and finds its record. Without one, nothing is
// locked. The memory is not looked at before the index says that it is the shard's.
func (t *Table) resolve(h Handle) (place, bool) {
	if !h.Valid() {
		return place{}, false
	}
	p := place{t: t, hash: h.hash, sh: t.shard(h.hash), i: h.index}
	p.sh.mu.Lock()
	if p.sh.index.has(t.tag(h.hash), h.index) {
		if p.record = p.sh.at(h.index); p.gen == h.gen {
			return p, true
		}
	}
	p.sh.mu.Unlock()
	return place{}, false
}

func (p *place) unlock() { p.sh.mu.Unlock() }

// insert makes a record for a flow that has none. False: no room.
func (p *place) insert(k *key, now time.Duration) bool {
	t := p.t
	i, gen, chunks := t.arena.take()
	if !p.sh.index.add(t.tag(p.hash), i) {
		t.arena.give(i)
		return false
	}
	p.sh.chunks = chunks
	p.i = i
	p.record = p.sh.at(i)
	p.key, p.ports = key32{k.aHi, k.aLo, k.bHi, k.bLo}, k.ports
	atomic.StoreUint32(&p.gen, gen)
	atomic.StoreUint32(&p.owner, 0)
	p.connection = connection{seen: epochs(now)}
	p.answered = millis(now) - t.waits.invalid
	t.records.Add(1)
	return true
}

// remove ends a record.
func (p *place) remove() {
	p.disarm()
	p.setState(Free)
	p.sh.index.remove(p.t.tag(p.hash), p.i)
	atomic.StoreUint32(&p.gen, 0)
	p.t.arena.give(p.i)
	p.t.records.Add(-1)
	p.record = nil
}

// setState keeps the counts that the state is part of.
func (p *place) setState(s State) {
	t, old := p.t, p.state
	if old == s {
		return
	}
	p.state = s
	if old != Free {
		t.states[old].Add(-1)
	}
	if s != Free {
		t.states[s].Add(1)
	}
	if old.halfOpen() && !s.halfOpen() && p.has(shares) {
		p.leaveShares()
	}
	if old.over() != s.over() {
		t.closed.Add(int64(sign(s.over())))
	}
	if !s.connected() && p.has(orphan) {
		p.flags &^= orphan
		t.orphans.Add(-1)
	}
	p.flags &^= served
	if s.connected() && !p.has(orphan) {
		p.flags |= served
	}
}

func sign(up bool) int {
	if up {
		return 1
	}
	return -1
}

// SetOwner keeps a number of the owner's in the record; results of the flow's
// packets have it from then on.
func (t *Table) SetOwner(h Handle, owner uint32) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	atomic.StoreUint32(&p.owner, owner)
	p.unlock()
	return true
}

// State returns what the record of h stands for, and Free if it is gone.
func (t *Table) State(h Handle) State {
	p, ok := t.resolve(h)
	if !ok {
		return Free
	}
	defer p.unlock()
	return p.state
}

// Release ends the record of a connection whose endpoint died without a packet that
// said so (its retransmissions ran out). Records that have left their
// owner stay. It reports whether there was one to end.
func (t *Table) Release(h Handle) bool {
	p, ok := t.resolve(h)
	if !ok {
		return false
	}
	defer p.unlock()
	if !p.hasEndpoint() {
		return false
	}
	t.count(Released)
	p.remove()
	return true
}
