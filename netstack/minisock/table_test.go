package minisock

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestIndex compares the index with a map, over growth and shrinking, splits and
// joins, and finds nothing left of either at the end.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var x index
	x.init()
	in := map[uint32]uint32{} // record to tag
	var order []uint32
	next := uint32(0)
	for phase, grow := range []int{90, 20, 70, 5, 0} {
		for range 20_000 {
			if rnd.IntN(100) < grow || len(order) == 0 {
				tag := rnd.Uint32()
				if next%9 == 0 && len(order) > 0 {
					tag = in[order[rnd.IntN(len(order))]] // a full collision
				}
				if !x.add(tag, next) {
					t.Fatal("no room")
				}
				in[next] = tag
				order = append(order, next)
				next++
			} else {
				j := rnd.IntN(len(order))
				i := order[j]
				x.remove(in[i], i)
				if x.has(in[i], i) {
					t.Fatal("removed and there")
				}
				delete(in, i)
				order[j] = order[len(order)-1]
				order = order[:len(order)-1]
			}
		}
		for i, tag := range in {
			if !x.has(tag, i) {
				t.Fatalf("phase %d: record %d is lost", phase, i)
			}
		}
		checkIndex(t, &x, len(in))
	}
	for i, tag := range in {
		x.remove(tag, i)
	}
	checkIndex(t, &x, 0)
	if d := x.dir.Load(); d.depth != 0 || len(d.buckets) != 1 {
		t.Errorf("a directory of %d for nothing", len(d.buckets))
	}
}

func checkIndex(t *testing.T, x *index, n int) {
	t.Helper()
	total, deepest := 0, uint32(0)
	seen := map[*bucket]int{}
	d := x.dir.Load()
	for j := range d.buckets {
		b := d.buckets[j].Load()
		seen[b]++
		if b.depth > d.depth {
			t.Fatal("deeper than the directory")
		}
		for i := range b.slots {
			if slot := b.slots[i].Load(); slot != 0 && uint64(tagOf(slot))>>(32-b.depth) != uint64(j)>>(d.depth-b.depth) {
				t.Fatal("in the wrong bucket")
			}
		}
	}
	for b, entries := range seen {
		used := 0
		for i := range b.slots {
			if b.slots[i].Load() != 0 {
				used++
			}
		}
		if used != int(b.n) || entries != 1<<(d.depth-b.depth) {
			t.Fatalf("bucket of %d says %d, has %d entries at depth %d of %d", used, b.n, entries, b.depth, d.depth)
		}
		total += used
		if b.depth == d.depth {
			deepest++
		}
	}
	if total != n || deepest != x.deepest || len(d.buckets) != 1<<d.depth {
		t.Fatalf("%d records of %d, %d deepest of %d", total, n, deepest, x.deepest)
	}
}

// TestIndexFull: hashes that are all the same fill one bucket, and no more.
func TestIndexFull(t *testing.T) {
	var x index
	x.init()
	n := uint32(0)
	for x.add(0xabcdef01, n) {
		n++
	}
	if n != bucketSlots-1 || x.dir.Load().depth != maxDepth {
		t.Errorf("%d in a bucket, depth %d", n, x.dir.Load().depth)
	}
	for i := range n {
		x.remove(0xabcdef01, i)
	}
	checkIndex(t, &x, 0)
}

// TestArena: memory is used again, lowest first, and generations never are.
func TestArena(t *testing.T) {
	var a arena
	gens := map[uint32]bool{}
	var all []uint32
	take := func() {
		i, gen, chunks := a.take()
		if gens[gen] || int(i>>chunkShift) >= len(chunks) {
			t.Fatalf("record %d, generation %d, %d chunks", i, gen, len(chunks))
		}
		gens[gen] = true
		all = append(all, i)
	}
	for range 3 * slabRecords * chunkSlabs {
		take()
	}
	for i, v := range all {
		if int(v) != i {
			t.Fatalf("%d is taken as number %d", v, i)
		}
	}
	for _, i := range all {
		if i%3 != 0 {
			a.give(i)
		}
	}
	all = nil
	for range 1000 {
		take()
	}
	for n, i := range all {
		if want := uint32(n/2*3 + n%2 + 1); i != want {
			t.Fatalf("%d is taken, want %d", i, want)
		}
	}
}

// TestHandles: a handle finds its record and no other, whatever came after it.
func TestHandles(t *testing.T) {
	r := newRig(t, nil)
	if r.t.Release(Handle{}) || (Handle{}).Valid() || r.t.SetOwner(Handle{}, 1) {
		t.Error("the zero handle")
	}
	var old []Handle
	for range 100 {
		c := r.open(flow4).establish()
		for _, h := range old {
			if r.t.Release(h) || r.t.State(h) != Free || r.t.Orphan(h, r.now) || r.t.Fail(h) || r.t.Answer(h, r.now) || r.t.Refuse(h) {
				t.Fatal("a stale handle does something")
			}
		}
		old = append(old, c.h)
		if !r.t.Release(c.h) {
			t.Fatal("Release")
		}
	}
	r.empty()
}

// TestTick: much that is due at once is done in parts, and in time.
func TestTick(t *testing.T) {
	const n = 3 * tickMost
	r := newRig(t, func(o *Options) {
		o.Overflow, o.Backlog, o.PerSource, o.PerDestination, o.SynAckRetries = OverflowDrop, n, n, n, -1
	})
	for i := range n {
		p := flow4
		p.src = addrPort([4]byte{198, 18, byte(i >> 8), byte(i)}, 9)
		r.in(p, seg{flags: syn, seq: irs})
	}
	r.sent = nil
	if next := r.t.Next(r.now); next != r.now+10*time.Second {
		t.Errorf("next %v", next-r.now)
	}
	r.now += 10 * time.Second
	for left := n; left > 0; {
		if next := r.t.Next(r.now); next > r.now {
			t.Errorf("next in %v with work to do", next-r.now)
		}
		r.t.Tick(r.now)
		now := r.t.Stats().Records
		if done := left - now; done >= tickMost+tickBatch || done < tickMost && now > 0 {
			t.Errorf("%d of %d done at once", done, left)
		}
		left = now
	}
	r.t.Tick(r.now)
	r.empty()
	if r.t.Next(r.now) != Never {
		t.Error("something to do with nothing there")
	}
}

// TestClockWraps: milliseconds of 32 bits do so after 49 days.
func TestClockWraps(t *testing.T) {
	r := newRig(t, nil)
	r.now = 1<<32*time.Millisecond - 5*time.Second
	c := r.open(flow4)
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if next := r.t.Next(r.now); next != r.now+wait {
			t.Errorf("next in %v, want %v", next-r.now, wait)
		}
		r.tick(wait)
		r.wants(r.reply(), flow4, syn|ack, c.isn, irs+1)
	}
	r.tick(3 * time.Second)
	r.empty()
}

// TestICMP: an error counts if it quotes what is in flight (RFC 5927).
func TestICMP(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		r := newRig(t, nil)
		c := r.open(p)
		quote := func(q pair, seq uint32) []byte {
			return raw(q.back(), seg{flags: ack, seq: seq})[:len(raw(q.back(), seg{}))-12]
		}
		judge := func(e Unreachable, v Verdict, why Cause) {
			t.Helper()
			res := r.t.ICMPError(&e)
			r.verdict(res, v, why)
		}
		judge(Unreachable{Quoted: quote(p, c.isn+1), Hard: true}, Dropped, ICMPSequence)
		judge(Unreachable{Quoted: quote(p, c.isn)}, Dropped, ICMPUnknown)
		judge(Unreachable{Quoted: quote(p.back(), c.isn)}, Dropped, ICMPUnknown)
		for n := range len(quote(p, 0)) {
			judge(Unreachable{Quoted: quote(p, c.isn)[:n]}, Dropped, Malformed)
		}
		c.establish()
		c.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 9, data: 1000})
		least := 1280
		if p == flow4 {
			least = 576
		}
		judge(Unreachable{Quoted: quote(p, c.isn+1), MTU: least}, Pass, None)
		judge(Unreachable{Quoted: quote(p, c.isn+1001), MTU: least}, Pass, None)
		for _, mtu := range []int{1, 68, least - 1} {
			judge(Unreachable{Quoted: quote(p, c.isn+1), MTU: mtu}, Dropped, ICMPLowMTU)
		}
		judge(Unreachable{Quoted: quote(p, c.isn), MTU: 1400}, Dropped, ICMPSequence)
		judge(Unreachable{Quoted: quote(p, c.isn+1002), MTU: 1400}, Dropped, ICMPSequence)
		r.t.Release(c.h)
		c = r.open(p)
		judge(Unreachable{Quoted: quote(p, c.isn), Hard: true}, Dropped, HalfOpenRefused)
		r.empty()
	})
}

// TestOptions: each field is checked, and has a default where zero means one.
func TestOptions(t *testing.T) {
	zero := Options{}
	if err := zero.Validate(); err != nil {
		t.Error(err)
	}
	full := reflect.ValueOf(zero.withDefaults())
	noDefault := map[string]bool{"Admission": true, "Overflow": true, "AlwaysCookies": true, "DeferAccept": true, "DelayACKs": true, "KeepaliveIdle": true, "Unacknowledged": true, "NoSACK": true, "NoTimeWaitReuse": true}
	for i := range full.NumField() {
		if name := full.Type().Field(i).Name; full.Field(i).IsZero() != noDefault[name] {
			t.Errorf("%s has the default %v", name, full.Field(i))
		}
	}
	defaults := zero.withDefaults()
	if err := defaults.Validate(); err != nil {
		t.Error(err)
	}
	bad := Options{
		Admission: 2, Overflow: 3, AlwaysCookies: true, Backlog: -1, PerSource: -1, PerDestination: -1, SynAckRetries: 7,
		HandshakeTimeout: -1, DialTimeout: -1, DeferAccept: -1, CreateTimeout: -1, MaxHeld: 65, TimeWait: 2 * time.Hour,
		Linger: -1, FinTimeout: -1, OrphanRetries: 7, MaxTimeWait: -1, MaxOrphans: -1, MaxRecords: -1, ResetRate: -1,
		ChallengeRate: -1, InvalidInterval: 2 * time.Hour, MinMSS: 1 << 16, Local: Local{WindowScale: 15}, Shards: 3,
		Unacknowledged: -1, KeepaliveIdle: -1, KeepaliveInterval: -1, KeepaliveCount: 128,
	}
	_, err := New(bad, &quiet{})
	if err == nil {
		t.Fatal("accepted")
	}
	for i := range full.NumField() {
		name := full.Type().Field(i).Name
		if free := name == "DelayACKs" || strings.HasPrefix(name, "No"); !free && !strings.Contains(err.Error(), name) {
			t.Errorf("no word of %s in %v", name, err)
		}
	}
}

// TestNames: metrics need a name for each, and none twice.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	check := func(kind, name string) {
		if name == "" || name == "unknown" || seen[kind+name] {
			t.Errorf("%s is named %q", kind, name)
		}
		seen[kind+name] = true
	}
	for c := range NumCauses {
		check("cause", c.String())
	}
	for s := range NumStates {
		check("state", s.String())
	}
	for v := range NumVerdicts {
		check("verdict", v.String())
	}
	if NumCauses.String() != "unknown" || NumStates.String() != "unknown" || NumVerdicts.String() != "unknown" {
		t.Error("names past the end")
	}
}

// TestKeys: two families and two directions, never taken for each other.
func TestKeys(t *testing.T) {
	flows := []pair{
		flow4, flow6,
		{netip.MustParseAddrPort("[::ffff:198.18.0.7]:40000"), netip.MustParseAddrPort("[::ffff:203.0.113.9]:443")},
		{netip.MustParseAddrPort("[::198.18.0.7]:40000"), netip.MustParseAddrPort("[::203.0.113.9]:443")},
	}
	seen := map[key]bool{}
	for _, p := range flows {
		for _, q := range []pair{p, p.back()} {
			b := raw(q, seg{flags: ack})
			d := describe(t, b, false, 0)
			var in, out segment
			in.read(&d, false)
			b = raw(q.back(), seg{flags: ack})
			d = describe(t, b, false, 0)
			out.read(&d, true)
			if in.key != out.key || seen[in.key] || in.key.client() != q.src || in.key.destination() != q.dst {
				t.Errorf("%v: %+v, %+v", q, in.key, out.key)
			}
			seen[in.key] = true
		}
	}
}

// TestLimiter: what is let through in a second, and at once.
func TestLimiter(t *testing.T) {
	for _, rate := range []int{1, 7, 100, 1000, 1_000_000} {
		l := newLimiter(rate)
		now, n := time.Hour, 0
		for l.allow(now) {
			n++
		}
		if want := max(1, rate/10); n < want || n > want+1 {
			t.Errorf("rate %d: %d at once", rate, n)
		}
		n = 0
		for range 10_000 {
			now += 500 * time.Microsecond
			for l.allow(now) {
				n++
			}
		}
		if n < rate*5-5 || n > rate*5+5 {
			t.Errorf("rate %d: %d in 5 s", rate, n)
		}
	}
}
