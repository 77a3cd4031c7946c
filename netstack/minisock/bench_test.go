package minisock

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSizes(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"record": {unsafe.Sizeof(record{}), 128},
		"slab":   {unsafe.Sizeof(slab{}), 8192},
		"bucket": {unsafe.Sizeof(bucket{}), 512},
		"shard":  {unsafe.Sizeof(shard{}), 192},
	} {
		if sizes[0] != sizes[1] && (name != "shard" || unsafe.Sizeof(uintptr(0)) == 8) {
			t.Errorf("a %s has %d bytes, want %d", name, sizes[0], sizes[1])
		}
	}
}

// quiet is a sink that counts.
type quiet struct{ packets, gone, ended int }

func (q *quiet) Emit([]byte, uint16)                   { q.packets++ }
func (q *quiet) Gone(Handle, uint32, Cause)            { q.gone++ }
func (q *quiet) Ended(_, _ netip.AddrPort, _ Cause)    { q.ended++ }
func (q *quiet) Stalled(_, _ netip.AddrPort, _ uint16) {}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// crowdKey is the key of the i-th of a crowd of clients.
func crowdKey(i int) key {
	return key{aHi: v4Mark, aLo: uint64(0x0a000000 + i>>4), bHi: v4Mark, bLo: 0xcb007109, ports: uint32(1024+i&15)<<16 | 443}
}

// crowd puts n established connections into a table, the short way.
func crowd(tb testing.TB, t *Table, n int) {
	tb.Helper()
	for i := range n {
		k := crowdKey(i)
		var p place
		p.lookup(t, &k)
		if !p.insert(&k, time.Hour) {
			tb.Fatal("no room")
		}
		p.setState(Established)
		p.flags |= live | withTS | withSACK | withWS
		p.cliNxt, p.rcvAck, p.rcvMax = 1000, 1000, 1<<30
		p.sndNxt, p.sndUna, p.seqD, p.tsD = 1<<29, 1, 77, 99
		p.ourWS, p.maxWnd = 7, 1<<30
		p.unlock()
	}
}

// TestBytesWithoutRecords: an empty table is a megabyte at most.
func TestBytesWithoutRecords(t *testing.T) {
	before := heap()
	tab, err := New(Options{}, &quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if n := heap() - before; n > 1<<20 {
		t.Errorf("%d KiB", n>>10)
	}
	runtime.KeepAlive(tab)
}

// TestBytesPerRecord: a record costs 160 bytes at most, at every size, all included
// that an empty table has not.
func TestBytesPerRecord(t *testing.T) {
	sizes := []int{1000, 10_000, 60_000}
	if !testing.Short() {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		// The least of three, since the test's own objects come and go as well.
		per := min(bytesPerRecord(t, n), bytesPerRecord(t, n), bytesPerRecord(t, n))
		t.Logf("%8d records: %.1f B each", n, per)
		if per > 160 {
			t.Errorf("%d records: %.1f bytes each", n, per)
		}
	}
}

func bytesPerRecord(t *testing.T, n int) float64 {
	t.Helper()
	tab, err := New(Options{}, &quiet{})
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	crowd(t, tab, n)
	per := float64(heap()-before) / float64(n)
	runtime.KeepAlive(tab)
	return per
}

// TestMemoryComesBack: of a million records that go, nothing stays.
func TestMemoryComesBack(t *testing.T) {
	const n = 300_000
	tab, err := New(Options{Shards: 16}, &quiet{})
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	crowd(t, tab, n)
	full := heap() - before
	for i := range n {
		k := crowdKey(i)
		var p place
		p.lookup(tab, &k)
		p.remove()
		p.unlock()
	}
	left := heap() - before
	t.Logf("%d KiB with %d records, %d KiB after them", full>>10, n, left>>10)
	if left > 256<<10 {
		t.Errorf("%d KiB are left of %d", left>>10, full>>10)
	}
	runtime.KeepAlive(tab)
}

// superframe is one of 64 KiB that a client of the crowd sends, or gets.
func superframe(i int, inward bool) (b []byte, s Segment) {
	k := crowdKey(i)
	p := pair{k.client(), k.destination()}
	sg := seg{flags: ack, seq: 1000, ack: 78, wnd: 500, opts: tsOpt(1, 100)}
	if !inward {
		p, sg.seq, sg.ack = p.back(), 1, 1000
	}
	b = raw(p, sg)
	return b, Segment{IP: b[:20], TCP: b[20:52], Payload: 64000, Queue: 1}
}

// BenchmarkHot is a superframe of a flow whose record is in the cache.
func BenchmarkHot(b *testing.B) {
	for _, inward := range []bool{true, false} {
		for _, partial := range []bool{true, false} {
			b.Run(fmt.Sprintf("inbound=%v/partial=%v", inward, partial), func(b *testing.B) {
				t, _ := New(Options{Shards: 16}, &quiet{})
				crowd(b, t, 1000)
				pkt, s := superframe(7, inward)
				s.Partial = partial
				b.ReportAllocs()
				for b.Loop() {
					var res Result
					if inward {
						binary.BigEndian.PutUint32(pkt[28:], 78)
						res = t.Inbound(&s, time.Hour)
					} else {
						binary.BigEndian.PutUint32(pkt[24:], 1)
						res = t.Outbound(&s, time.Hour)
					}
					if res.Verdict != Pass {
						b.Fatal(res)
					}
				}
			})
		}
	}
}

// BenchmarkRandom is a superframe of another flow each time.
func BenchmarkRandom(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t, _ := New(Options{Shards: 16}, &quiet{})
			crowd(b, t, n)
			pkt, s := superframe(0, true)
			s.Partial = true
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 611_953) % n
				binary.BigEndian.PutUint32(pkt[12:], uint32(0x0a000000+i>>4))
				binary.BigEndian.PutUint16(pkt[20:], uint16(1024+i&15))
				binary.BigEndian.PutUint32(pkt[28:], 78)
				if res := t.Inbound(&s, time.Hour); res.Verdict != Pass {
					b.Fatal(res)
				}
			}
		})
	}
}

// BenchmarkBatch is BenchmarkRandom by batches, with and without Prefetch. The time
// is a packet's.
func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		for _, ahead := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/prefetch=%v", n, ahead), func(b *testing.B) {
				t, _ := New(Options{Shards: 16}, &quiet{})
				crowd(b, t, n)
				var batch [lookahead]Segment
				for j := range batch {
					_, batch[j] = superframe(0, true)
					batch[j].Partial = true
				}
				b.ReportAllocs()
				i := 0
				b.ResetTimer()
				for done := 0; done < b.N; done += lookahead {
					for j := range batch {
						i = (i + 611_953) % n
						s := &batch[j]
						binary.BigEndian.PutUint32(s.IP[12:], uint32(0x0a000000+i>>4))
						binary.BigEndian.PutUint16(s.TCP, uint16(1024+i&15))
						binary.BigEndian.PutUint32(s.TCP[8:], 78)
					}
					if ahead {
						t.Prefetch(batch[:])
					}
					for j := range batch {
						if res := t.Inbound(&batch[j], time.Hour); res.Verdict != Pass {
							b.Fatal(res)
						}
					}
				}
			})
		}
	}
}

// BenchmarkInsert is a million new records; worst is the longest pause of any, by the
// thread's own clock, since others use the machine as well. Its reading is in it.
func BenchmarkInsert(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	clock := func() int64 {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
		return ts.Nano()
	}
	for b.Loop() {
		t, _ := New(Options{Shards: 16}, &quiet{})
		var worst int64
		const n = 1_000_000
		start := clock()
		last := start
		for i := range n {
			k := crowdKey(i)
			var p place
			p.lookup(t, &k)
			p.insert(&k, time.Hour)
			p.unlock()
			now := clock()
			worst = max(worst, now-last)
			last = now
		}
		b.ReportMetric(float64(last-start)/n, "ns/insert")
		b.ReportMetric(float64(worst)/1000, "us-worst")
		runtime.GC()
	}
}

// BenchmarkSYN is a flood: each SYN of another source.
func BenchmarkSYN(b *testing.B) {
	for _, c := range []struct {
		name    string
		backlog int
		pressed bool
	}{
		{"record", 1 << 24, false},
		{"cookie", 1, false},
		{"spared", 1, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			q := &quiet{}
			t, _ := New(Options{Shards: 16, Backlog: c.backlog, MaxRecords: 1 << 28, PerDestination: 1 << 24}, q)
			pkt := raw(flow4, seg{flags: syn, seq: irs, opts: linuxSYN()})
			s := Segment{IP: pkt[:20], TCP: pkt[20:], Queue: 1, Pressed: c.pressed}
			b.ReportAllocs()
			i := uint32(0)
			for b.Loop() {
				i++
				binary.BigEndian.PutUint32(pkt[12:], i)
				t.Inbound(&s, time.Hour)
			}
		})
	}
}

// lastSeq is a sink that keeps the sequence number of what was sent last.
type lastSeq struct {
	quiet
	seq uint32
}

func (l *lastSeq) Emit(b []byte, _ uint16) { l.seq = binary.BigEndian.Uint32(b[24:]) }

// BenchmarkLife is all that a connection costs here: SYN, ACK, the endpoint's opening,
// a request and its answer, both FINs, and the SYN that takes the tuple from TIME_WAIT.
func BenchmarkLife(b *testing.B) {
	sink := &lastSeq{}
	t, _ := New(Options{Shards: 16}, sink)
	packet := func(p pair, s seg) Segment {
		raw := raw(p, s)
		return Segment{IP: raw[:20], TCP: raw[20:], Payload: s.data, Partial: true}
	}
	hello := packet(flow4, seg{flags: syn, wnd: 65000, opts: linuxSYN()})
	in := packet(flow4, seg{flags: ack, wnd: 500, opts: tsOpt(clientTS, 0)})
	stackHello := packet(flow4.back(), seg{flags: syn, opts: stackSYN()})
	out := packet(flow4.back(), seg{flags: ack, wnd: 500, opts: tsOpt(stackTS, 0)})
	set := func(s *Segment, flags uint8, seq, ackd uint32, payload int) *Segment {
		s.TCP[13], s.Payload = flags, payload
		binary.BigEndian.PutUint32(s.TCP[4:], seq)
		binary.BigEndian.PutUint32(s.TCP[8:], ackd)
		binary.BigEndian.PutUint32(s.TCP[24:], clientTS)
		return s
	}
	var buf [packetMax]byte
	now, isn := time.Hour, uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		now += time.Second
		isn += 1 << 20
		binary.BigEndian.PutUint32(hello.TCP[4:], isn)
		t.Inbound(&hello, now)
		ours := sink.seq + 1
		res := t.Inbound(set(&in, ack, isn+1, ours, 0), now)
		binary.BigEndian.PutUint32(stackHello.TCP[4:], 99)
		t.Outbound(&stackHello, now)
		t.Establish(res.Handle, now, buf[:0])
		t.Outbound(set(&out, ack, 100, isn+1, 0), now)
		t.Ready(res.Handle, now)
		t.Inbound(set(&in, ack, isn+1, ours, 100), now)
		t.Outbound(set(&out, ack, 100, isn+101, 1000), now)
		t.Inbound(set(&in, ack, isn+101, ours+1000, 0), now)
		t.Outbound(set(&out, fin|ack, 1100, isn+101, 0), now)
		t.Inbound(set(&in, fin|ack, isn+101, ours+1001, 0), now)
		if res := t.Outbound(set(&out, ack, 1101, isn+102, 0), now); !res.Gone {
			b.Fatalf("%+v in %v", res, t.Stats().States)
		}
	}
}
