package minisock

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busySink calls the table from its callbacks, as an owner may.
type busySink struct {
	t       *Table
	packets atomic.Int64
	gone    atomic.Int64
	ended   atomic.Int64
	stalled atomic.Int64
}

func (s *busySink) Emit(b []byte, _ uint16) {
	if len(b) < 40 {
		panic("short packet")
	}
	s.packets.Add(1)
}

func (s *busySink) Gone(h Handle, _ uint32, _ Cause) {
	if s.t.State(h) != Free {
		panic("gone and there")
	}
	s.gone.Add(1)
}

func (s *busySink) Ended(_, _ netip.AddrPort, _ Cause) {
	s.t.Probe(0) // is busy
	s.ended.Add(1)
}

func (s *busySink) Stalled(_, _ netip.AddrPort, _ uint16) { s.stalled.Add(1) }

// TestConcurrent: readers of several queues, the stack, timers and owners at once,
// on few flows, so that they meet. Afterwards all of it drains.
func TestConcurrent(t *testing.T) {
	steps := 40_000
	if testing.Short() {
		steps = 4_000
	}
	sink := &busySink{}
	o := Options{
		Shards: 2, Backlog: 10, Admission: DialFirst, ResetRate: 1e6, ChallengeRate: 1e6,
		MaxTimeWait: 30, MaxOrphans: 5, HandshakeTimeout: time.Second, TimeWait: 2 * time.Second, CreateTimeout: time.Second,
		KeepaliveIdle: 100 * time.Millisecond, KeepaliveInterval: 100 * time.Millisecond, KeepaliveCount: 2,
	}
	tab, err := New(o, sink)
	if err != nil {
		t.Fatal(err)
	}
	sink.t = tab
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	now := func() time.Duration { return time.Duration(clock.Load()) }
	var readers, helpers sync.WaitGroup
	for id := range uint64(3) {
		readers.Go(func() { reader(tab, rand.New(rand.NewPCG(id, 9)), now, steps) })
	}
	done := make(chan struct{})
	helpers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				clock.Add(int64(5 * time.Millisecond))
				tab.Tick(now())
				tab.Next(now())
				tab.Stats()
				tab.Probe(now())
				if now()/time.Millisecond%1000 == 0 {
					tab.EndIdle(1, 0, now()+epoch)
				}
			}
		}
	})
	readers.Wait()
	close(done)
	helpers.Wait()

	for range 50 {
		clock.Add(int64(100 * time.Millisecond))
		tab.Probe(now())
	}
	// What is left is connected; its owners let go.
	for i := range 64 {
		k := crowdKey(i)
		var p place
		p.lookup(tab, &k)
		h := Handle{}
		if p.record != nil {
			h = p.handle()
		}
		p.unlock()
		tab.Release(h)
	}
	r := &rig{TB: t, t: tab, now: now()}
	for range 200 {
		r.tick(time.Second)
	}
	r.empty()
	s := tab.Stats()
	t.Logf("%d packets, %d gone, %d established, %d in TIME_WAIT, %d orphans",
		sink.packets.Load(), sink.gone.Load(), s.Counters[Answered], s.Counters[TimeWaitEntered], s.Counters[Orphaned])
	if n := s.Counters[ClientSilent] + s.Counters[Shed]; int64(n) != sink.ended.Load() {
		t.Errorf("told of %d ends of %d", sink.ended.Load(), n)
	}
	for _, c := range []Cause{Answered, TimeWaitEntered, Orphaned, ResetOut, CookieSent, Shed} {
		if s.Counters[c] == 0 {
			t.Errorf("nothing of %v", c)
		}
	}
}

// reader plays clients, the stack and the owner of 64 flows, without a plan. It
// looks at the records to say what is nearly right.
func reader(tab *Table, rnd *rand.Rand, now func() time.Duration, steps int) {
	for range steps {
		k := crowdKey(rnd.IntN(64))
		var p place
		p.lookup(tab, &k)
		var h Handle
		var r record
		if p.record != nil {
			h, r = p.handle(), *p.record
		}
		p.unlock()
		flow := pair{k.client(), k.destination()}
		sg := seg{seq: r.cliNxt, ack: r.sndNxt, wnd: 100, flags: []uint8{ack, ack, ack, ack, syn, syn, fin | ack, rst}[rnd.IntN(8)]}
		if sg.flags == rst && rnd.IntN(4) > 0 {
			sg.seq += 5
		}
		inbound := rnd.IntN(2) == 0
		if !inbound {
			flow, sg.seq, sg.ack = flow.back(), r.sndNxt-r.seqD, r.cliNxt
			if r.state == Creating && !r.has(live) {
				sg.flags = syn
			}
		}
		b := raw(flow, sg)
		s := Segment{IP: b[:20], TCP: b[20:], Queue: uint16(rnd.IntN(4))}
		var res Result
		tab.Prefetch([]Segment{s})
		if inbound {
			res = tab.Inbound(&s, now())
		} else {
			res = tab.Outbound(&s, now())
		}
		own(tab, rnd, now, h, res)
		if res.Verdict == Hold {
			tab.Resume(&s, now())
		}
	}
}

// own does what an owner does, or anything else.
func own(tab *Table, rnd *rand.Rand, now func() time.Duration, h Handle, res Result) {
	if res.Handle.Valid() {
		h = res.Handle
	}
	switch res.Verdict {
	case Dial:
		switch rnd.IntN(8) {
		case 0:
			tab.Refuse(h)
		case 1:
			tab.Drop(h)
		default:
			tab.SetOwner(h, 1)
			tab.Answer(h, now())
		}
	case Create:
		tab.Open(h)
	case Swallowed:
		tab.Establish(h, now(), nil)
		tab.Ready(h, now())
	case Dropped, Pass, Hold, Later, NumVerdicts:
		switch rnd.IntN(40) {
		case 0:
			tab.Release(h)
		case 1, 2, 3:
			tab.Orphan(h, now())
		case 4:
			tab.Fail(h)
		case 5:
			tab.State(h)
		default:
			tab.Ready(h, now())
		}
	}
}
