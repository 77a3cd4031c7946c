package minisock

import (
	"testing"
	"time"
)

// silentFor lets the i-th of a crowd have been silent for d.
func (r *rig) silentFor(i int, d time.Duration) {
	k := crowdKey(i)
	var p place
	p.lookup(r.t, &k)
	p.seen = epochs(r.now - d)
	p.unlock()
}

// left reports which of a crowd of n are there.
func (r *rig) left(n int) []bool {
	there := make([]bool, n)
	for i := range n {
		k := crowdKey(i)
		var p place
		p.lookup(r.t, &k)
		there[i] = p.record != nil
		p.unlock()
	}
	return there
}

// TestEndIdle: who has been silent for longest goes first, and nobody too early.
func TestEndIdle(t *testing.T) {
	for name, tc := range map[string]struct {
		n, most int
		age     func(i int) time.Duration
		ended   int
		first   bool // and these are the first of the crowd
	}{
		"none are there":    {0, 10, nil, 0, true},
		"none is old":       {100, 10, func(int) time.Duration { return 5 * time.Second }, 0, true},
		"the oldest":        {1000, 100, func(i int) time.Duration { return time.Hour - time.Duration(i)*3*time.Second }, 100, true},
		"fewer than wanted": {100, 50, func(i int) time.Duration { return time.Duration(100*(1-min(i, 20)/20)) * time.Second }, 20, true},
		"all are equal":     {1000, 77, func(int) time.Duration { return time.Minute }, 77, false},
		"one":               {1000, 1, func(i int) time.Duration { return time.Minute - time.Duration(min(i, 1))*10*time.Second }, 1, true},
		"older than told apart": {300, 50, func(i int) time.Duration {
			if i < 100 {
				return 100*time.Hour + time.Duration(i)*time.Minute
			}
			return time.Minute
		}, 50, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.now = 200 * time.Hour
			crowd(t, r.t, tc.n)
			for i := range tc.n {
				r.silentFor(i, tc.age(i))
			}
			if got := r.t.EndIdle(tc.most, 5*time.Second, r.now); got != tc.ended {
				t.Fatalf("%d ended, want %d", got, tc.ended)
			}
			if len(r.ended) != tc.ended || r.counted(Shed) != tc.ended || len(r.sent) != tc.ended {
				t.Errorf("told of %d, counted %d, sent %d", len(r.ended), r.counted(Shed), len(r.sent))
			}
			for i, there := range r.left(tc.n) {
				if tc.first && there != (i >= tc.ended) {
					t.Fatalf("%d is there: %v", i, there)
				}
			}
			for i, e := range r.ended {
				g := r.sent[i]
				if e.why != Shed || g.pair != e.back() || g.flags != rst|ack || g.seq != 1<<29 || g.ack != 1000 {
					t.Fatalf("%+v, sent %+v", e, g)
				}
			}
		})
	}
}

// TestEndIdleLeavesOthers: what has no endpoint is not ended, however old.
func TestEndIdleLeavesOthers(t *testing.T) {
	r := newRig(t, nil)
	r.open(flow4) // SYN received
	life(r, flow6)
	r.now += 30 * time.Second
	if n := r.t.EndIdle(10, time.Second, r.now); n != 0 {
		t.Errorf("%d ended", n)
	}
	if s := r.t.Stats(); s.Records != 2 {
		t.Errorf("%+v", s)
	}
}

// TestEndIdleProbed: answers to probes make nobody busy, and data does.
func TestEndIdleProbed(t *testing.T) {
	r := newRig(t, keepalive)
	quiet, busy := r.open(flow4).establish(), r.open(flow6).establish()
	answer := func(c *conn) {
		g := c.sent[0]
		c.sent = c.sent[1:]
		if g.pair != c.p.back() {
			c = map[*conn]*conn{quiet: busy, busy: quiet}[c]
		}
		res, _ := c.in(c.p, seg{flags: ack, seq: irs + 1, ack: g.seq + 1, wnd: 9, opts: tsOpt(clientTS+2, c.ts)})
		c.goes(res, false)
	}
	for range 3 { // both are probed, and answer
		for n := 0; n < 2; {
			r.pass(time.Second)
			for ; len(r.sent) > 0; n++ {
				answer(quiet)
			}
		}
	}
	busy.in(busy.p, seg{flags: ack, seq: irs + 1, ack: busy.isn + 1, wnd: 9, opts: tsOpt(clientTS+3, busy.ts), data: 1})
	r.pass(10 * time.Second)
	if n := r.t.EndIdle(2, 2*time.Minute, r.now); n != 1 || r.ended[0].pair != quiet.p {
		t.Fatalf("%d ended: %v", n, r.ended)
	}
	if n := r.t.EndIdle(2, 8*time.Second, r.now); n != 1 || r.ended[1].pair != busy.p {
		t.Fatalf("%d ended: %v", n, r.ended)
	}
}

// BenchmarkEndIdle is a step of a million records that ends 10,000.
func BenchmarkEndIdle(b *testing.B) {
	t, _ := New(Options{Shards: 16}, &quiet{})
	crowd(b, t, 1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if n := t.EndIdle(10_000, time.Second, 2*time.Hour); n != 10_000 {
			b.Fatal(n)
		}
		b.StopTimer()
		refill(b, t)
		b.StartTimer()
	}
}

// refill makes the crowd complete again.
func refill(b *testing.B, t *Table) {
	b.Helper()
	for i := range 1_000_000 {
		k := crowdKey(i)
		var p place
		p.lookup(t, &k)
		if p.record == nil {
			p.insert(&k, time.Hour)
			p.setState(Established)
		}
		p.unlock()
	}
}
