package minisock

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// The keepalive of most tests, and how late a probe may be by its doc.
const (
	testIdle, testInterval, testCount = time.Minute, 10 * time.Second, 3

	testLate = 2*epoch + testInterval/lookEvery + testInterval/lookEvery/4
)

func keepalive(o *Options) {
	o.KeepaliveIdle, o.KeepaliveInterval, o.KeepaliveCount = testIdle, testInterval, testCount
}

// pass lets time pass, with Probe called when it says.
func (r *rig) pass(d time.Duration) {
	end := r.now + d
	for {
		next := r.t.Probe(r.now)
		if next >= end {
			r.now = end
			return
		}
		r.now = next
	}
}

// next lets time pass until something is sent, and returns that and how long it took.
func (r *rig) next(most time.Duration) (got, time.Duration) {
	r.Helper()
	start := r.now
	for len(r.sent) == 0 {
		if r.now > start+most {
			r.Fatalf("nothing was sent in %v", most)
		}
		r.pass(100 * time.Millisecond)
	}
	return r.reply(), r.now - start
}

// asks is a probe, in time.
func (c *conn) asks(seq, ackd uint32, after time.Duration) got {
	c.Helper()
	g, took := c.next(after + testLate)
	c.wants(g, c.p, ack, seq, ackd)
	if took < after {
		c.Fatalf("a probe after %v, want %v at least", took, after)
	}
	return g
}

// TestKeepalive: what a silent client gets, and when.
func TestKeepalive(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, keepalive).open(p).establish()
		// Both sides have said something.
		res, _ := c.in(p, seg{flags: ack, seq: irs + 1, ack: c.isn + 1, wnd: 500, opts: tsOpt(clientTS+9, c.ts), data: 100})
		c.goes(res, false)
		res, _ = c.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 101, wnd: 601, opts: tsOpt(stackTS+4, clientTS+9), data: 50})
		c.goes(res, false)
		res, _ = c.in(p, seg{flags: ack, seq: irs + 101, ack: c.isn + 51, wnd: 500, opts: tsOpt(clientTS+11, c.ts+4)})
		c.goes(res, false)
		for n := range testCount {
			after := testInterval
			if n == 0 {
				after = testIdle
			}
			g := c.asks(c.isn+50, irs+101, after)
			if g.wnd != 601 || !g.hasTS || g.tsVal != c.ts+4 || g.tsEcr != clientTS+11 || g.queue != 3 {
				t.Errorf("probe %d: %+v", n, g)
			}
		}
		g, took := c.next(testInterval + testLate)
		c.wants(g, p, rst|ack, c.isn+51, irs+101)
		if took < testInterval || g.hasTS {
			t.Errorf("RST after %v: %+v", took, g)
		}
		if len(c.ended) != 1 || c.ended[0] != (ending{p, ClientSilent}) {
			t.Errorf("ended %v", c.ended)
		}
		if c.counted(ProbeSent) != testCount || c.counted(ClientSilent) != 1 {
			t.Errorf("counted %d probes, %d ends", c.counted(ProbeSent), c.counted(ClientSilent))
		}
		res, _ = c.fromStack(rst|ack, 50, 100) // the endpoint's own
		c.verdict(res, Dropped, NoFlow)
		c.empty()
	})
}

// TestKeepalivePlain: a client without timestamps, and numbers that wrap.
func TestKeepalivePlain(t *testing.T) {
	r := newRig(t, keepalive)
	crowd(t, r.t, 1)
	k := crowdKey(0)
	var p place
	p.lookup(r.t, &k)
	p.flags &^= withTS
	p.sndUna, p.sndNxt, p.rcvAck, p.cliNxt = 0, 0, 7, 7
	p.unlock()
	g, _ := r.next(2 * testIdle)
	r.wants(g, pair{k.client(), k.destination()}, ack, ^uint32(0), 7)
	if g.hasTS {
		t.Errorf("%+v", g)
	}
}

// TestKeepaliveHears: what a client says between probes, and what it means.
func TestKeepaliveHears(t *testing.T) {
	next := irs + 1
	for name, tc := range map[string]struct {
		seg   func(c *conn) seg
		heard bool
	}{
		"the answer": {func(c *conn) seg {
			return seg{flags: ack, seq: next, ack: c.isn + 1, wnd: 500, opts: tsOpt(clientTS+2, c.ts)}
		}, true},
		"without a timestamp": {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, wnd: 500} }, true},
		"a window of zero":    {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, opts: tsOpt(clientTS+2, c.ts)} }, true},
		"data":                {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, data: 5} }, true},
		"its own probe":       {func(c *conn) seg { return seg{flags: ack, seq: next - 1, ack: c.isn + 1} }, true},
		"an old timestamp":    {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1, opts: tsOpt(clientTS-9, c.ts)} }, false},
		"an ACK of nothing":   {func(c *conn) seg { return seg{flags: ack, seq: next, ack: c.isn + 1<<20} }, false},
		"a SYN":               {func(*conn) seg { return seg{flags: syn, seq: next + 5} }, false},
		"a RST not exact":     {func(*conn) seg { return seg{flags: rst, seq: next + 5} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, p pair) {
				for probes := 1; probes <= testCount; probes++ {
					c := newRig(t, keepalive).open(p).establish()
					c.asks(c.isn, next, testIdle)
					for range probes - 1 {
						c.asks(c.isn, next, testInterval)
					}
					c.pass(testInterval / 2)
					c.in(p, tc.seg(c))
					c.sent = nil // a challenge, where it is due
					if tc.heard {
						if ackd := irs + 1; tc.seg(c).data > 0 {
							c.fromStack(ack, 0, 5)
							c.asks(c.isn, ackd+5, testIdle)
						} else {
							c.asks(c.isn, ackd, testIdle)
						}
						c.state(Established)
						continue
					}
					rest := testInterval / 2 * 9 / 10
					for range testCount - probes {
						c.asks(c.isn, next, rest)
						rest = testInterval
					}
					g, _ := c.next(testInterval + testLate)
					c.wants(g, p, rst|ack, c.isn+1, next)
				}
			})
		})
	}
}

// TestKeepaliveStates: who is probed at all.
func TestKeepaliveStates(t *testing.T) {
	established := func(r *rig, p pair) *conn { return r.open(p).establish() }
	for name, tc := range map[string]struct {
		to     func(c *conn)
		state  State
		probed bool
		ours   uint32 // sequence numbers that we have used
		theirs uint32
	}{
		"established":  {func(*conn) {}, Established, true, 0, 0},
		"unanswered":   {func(c *conn) { c.out(c.p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, data: 9}) }, Established, false, 9, 0},
		"client's FIN": {func(c *conn) { c.fromClient(fin|ack, 0, 0); c.fromStack(ack, 0, 1) }, CloseWait, true, 0, 1},
		"our FIN":      {func(c *conn) { c.fromStack(fin|ack, 0, 0) }, FinWait1, false, 1, 0},
		"acknowledged": {func(c *conn) { c.fromStack(fin|ack, 0, 0); c.fromClient(ack, 0, 1) }, FinWait2, true, 1, 0},
		"both cross":   {func(c *conn) { c.fromStack(fin|ack, 0, 0); c.fromClient(fin|ack, 0, 0); c.fromStack(ack, 1, 1) }, Closing, false, 1, 1},
		"last ACK":     {func(c *conn) { c.fromClient(fin|ack, 0, 0); c.fromStack(fin|ack, 0, 1) }, LastAck, false, 1, 1},
		"TIME_WAIT":    {func(c *conn) { c.closeActive() }, TimeWait, false, 1, 1},
		"an orphan": {func(c *conn) {
			c.fromStack(fin|ack, 0, 0)
			c.fromClient(ack, 0, 1)
			c.t.Orphan(c.h, c.now)
		}, FinWait2, false, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, p pair) {
				c := established(newRig(t, keepalive), p)
				tc.to(c)
				c.state(tc.state)
				c.sent = nil
				if !tc.probed {
					c.pass(testIdle + testCount*testInterval + 10*testLate)
					c.silent()
					c.state(tc.state)
					return
				}
				c.asks(c.isn+tc.ours, irs+1+tc.theirs, testIdle)
				for range testCount - 1 {
					c.asks(c.isn+tc.ours, irs+1+tc.theirs, testInterval)
				}
				g, _ := c.next(testInterval + testLate)
				c.wants(g, p, rst|ack, c.isn+1+tc.ours, irs+1+tc.theirs)
				c.empty()
			})
		})
	}
	t.Run("half-open", func(t *testing.T) {
		r := newRig(t, keepalive)
		r.open(flow4)
		r.pass(testIdle + testCount*testInterval)
		r.silent()
	})
	t.Run("off", func(t *testing.T) {
		r := newRig(t, nil)
		r.open(flow4).establish()
		if next := r.t.Probe(r.now + 100*time.Hour); next != Never {
			t.Errorf("next %v", next)
		}
		r.silent()
	})
}

// TestKeepaliveStandsStill: whose answers may have come while the process stood is
// asked again, and not given up.
func TestKeepaliveStandsStill(t *testing.T) {
	c := newRig(t, keepalive).open(flow4).establish()
	c.asks(c.isn, irs+1, testIdle)
	for range 2 * testCount {
		c.now += time.Minute
		c.asks(c.isn, irs+1, 0)
	}
	c.state(Established)
	for range testCount - 1 { // from now on it would have been heard
		c.asks(c.isn, irs+1, testInterval)
	}
	g, _ := c.next(testInterval + testLate)
	c.wants(g, flow4, rst|ack, c.isn+1, irs+1)
}

// TestKeepaliveAfterRetries: SYN-ACKs that were repeated are no probes.
func TestKeepaliveAfterRetries(t *testing.T) {
	r := newRig(t, keepalive)
	c := r.open(flow4)
	for _, d := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		r.tick(d)
		r.reply()
	}
	c.establish()
	c.asks(c.isn, irs+1, testIdle)
	for range testCount - 1 {
		c.asks(c.isn, irs+1, testInterval)
	}
	c.state(Established)
}

// mass is a sink that answers the probes of a crowd, unless its clients are dead, and
// keeps when they came.
type mass struct {
	t      *Table
	now    time.Duration
	dead   bool
	answer []byte
	last   []time.Duration // of each client
	probes []int
	second map[time.Duration]int // probes in each
	burst  int                   // since now changed
	most   int
	least  time.Duration // between two of one client
	resets int
	ended  int
}

func (m *mass) Emit(b []byte, _ uint16) {
	if b[33]&rst != 0 {
		m.resets++
		return
	}
	who := binary.BigEndian.Uint32(b[16:])<<4&0xfffffff | uint32(binary.BigEndian.Uint16(b[22:]))&15
	if last := m.last[who]; last != 0 {
		m.least = min(m.least, m.now-last)
	}
	m.last[who] = m.now
	m.probes[who]++
	m.second[m.now/time.Second]++
	m.burst++
	m.most = max(m.most, m.burst)
	if m.dead {
		return
	}
	a := m.answer
	copy(a[12:16], b[16:20])
	copy(a[20:22], b[22:24])
	copy(a[24:28], b[28:32])
	binary.BigEndian.PutUint32(a[28:], binary.BigEndian.Uint32(b[24:])+1)
	s := Segment{IP: a[:20], TCP: a[20:], Partial: true}
	if res := m.t.Inbound(&s, m.now); res.Verdict != Pass {
		panic(res.Cause.String())
	}
}

func (m *mass) Gone(Handle, uint32, Cause)            {}
func (m *mass) Ended(_, _ netip.AddrPort, _ Cause)    { m.ended++ }
func (m *mass) Stalled(_, _ netip.AddrPort, _ uint16) {}

// silence is a crowd that falls silent all at once.
func silence(t *testing.T, n int, dead bool) *mass {
	t.Helper()
	k := crowdKey(0)
	m := &mass{
		now: time.Hour, dead: dead, last: make([]time.Duration, n), probes: make([]int, n), second: map[time.Duration]int{}, least: time.Hour,
		answer: raw(pair{k.client(), k.destination()}, seg{flags: ack, opts: tsOpt(1, 1)}),
	}
	tab, err := New(Options{KeepaliveIdle: 10 * time.Minute, KeepaliveInterval: 75 * time.Second, KeepaliveCount: 9, Shards: 16}, m)
	if err != nil {
		t.Fatal(err)
	}
	m.t = tab
	crowd(t, tab, n)
	for i := range n {
		k := crowdKey(i)
		var p place
		p.lookup(tab, &k)
		p.sndNxt = p.sndUna
		p.unlock()
	}
	return m
}

func (m *mass) pass(d time.Duration) {
	for end := m.now + d; m.now < end; {
		m.burst = 0
		m.now = m.t.Probe(m.now)
	}
}

// TestKeepaliveSpreads: of a mass that falls silent at once, one is asked after the
// other, each as often as it should be.
func TestKeepaliveSpreads(t *testing.T) {
	n := 100_000 // a million are asked in 101 s
	if testing.Short() {
		n = 20_000
	}
	busiest := n / 75 * 5 / 4
	m := silence(t, n, false)
	m.pass(15 * time.Minute)
	for _, probes := range m.probes {
		if probes != 1 {
			t.Fatalf("one was asked %d times", probes)
		}
	}
	seconds := 0
	for at, probes := range m.second {
		seconds++
		if probes > busiest+lookBatch/2 {
			t.Errorf("%d probes in second %d, want %d at most", probes, at, busiest)
		}
	}
	if seconds < 55 || seconds > 75 {
		t.Errorf("it took %d s", seconds)
	}
	if m.most > lookBatch {
		t.Errorf("%d probes at once", m.most)
	}
	t.Logf("%d probes in %d s, %d at once", n, seconds, m.most)
	m.pass(20 * time.Minute) // and every ten minutes from then on
	for _, probes := range m.probes {
		if probes < 3 {
			t.Fatalf("one was asked %d times in 35 minutes", probes)
		}
	}
	if m.least < 10*time.Minute {
		t.Errorf("one was asked again after %v", m.least)
	}
	if m.ended != 0 || m.resets != 0 {
		t.Errorf("%d ended, %d resets", m.ended, m.resets)
	}
}

// TestKeepaliveMassDies: each of them gets all of its probes, and time to answer.
func TestKeepaliveMassDies(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	m := silence(t, n, true)
	m.pass(26 * time.Minute) // 10 min, 9 times 75 s, and what looking takes
	if m.ended != n || m.resets != n {
		t.Fatalf("%d ended, %d resets; want %d", m.ended, m.resets, n)
	}
	for _, probes := range m.probes {
		if probes != 9 {
			t.Fatalf("one was asked %d times", probes)
		}
	}
	if m.least < 75*time.Second {
		t.Errorf("one was asked again after %v", m.least)
	}
	if s := m.t.Stats(); s.Records != 0 {
		t.Errorf("%d records are left", s.Records)
	}
}

// TestWalk: a walk meets everybody who stays, however the rest comes and goes.
func TestWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{0, 1, 63, 1000, 20_000} {
		tab, err := New(Options{Shards: 8}, &quiet{})
		if err != nil {
			t.Fatal(err)
		}
		crowd(t, tab, n)
		stay := n / 3
		met := map[uint32]bool{}
		var c cursor
		for left := 8 * round; left > 0; {
			span, _ := tab.visit(&c, func(r *record) bool {
				met[uint32(r.key[1])<<4|r.ports>>16&15] = true
				return false
			}, errand{})
			if span <= 0 {
				t.Fatal("it stands still")
			}
			left -= span
			for range 20 {
				k := crowdKey(stay + rnd.IntN(2*n+1))
				var p place
				p.lookup(tab, &k)
				if p.record != nil {
					p.remove()
				} else if rnd.IntN(2) == 0 {
					p.insert(&k, time.Hour)
				}
				p.unlock()
			}
		}
		for i := range stay {
			if k := crowdKey(i); !met[uint32(k.aLo)<<4|k.ports>>16&15] {
				t.Fatalf("of %d, the %d-th was missed", n, i)
			}
		}
	}
}

// BenchmarkProbe is a walk through a million records of whom nobody is to be probed:
// the time is a record's.
func BenchmarkProbe(b *testing.B) {
	const n = 1_000_000
	t, _ := New(Options{Shards: 16, KeepaliveIdle: 10 * time.Minute}, &quiet{})
	crowd(b, t, n)
	b.ReportAllocs()
	b.ResetTimer()
	present := epochs(time.Hour)
	for done := 0; done < b.N; done += n {
		t.once(1, func(r *record) bool { return t.keeper.due(r, present) }, errand{})
	}
	b.ReportMetric(float64(n)*lookEvery/75*b.Elapsed().Seconds()/float64(max(b.N, n))*100, "%-of-a-CPU")
}

// TestUnacknowledged: a client that is silent and has not acknowledged what was sent
// is given up in the end, with keepalive or without, and one that says anything is not.
func TestUnacknowledged(t *testing.T) {
	const most = 2 * time.Minute
	for name, change := range map[string]func(*Options){
		"alone":          func(*Options) {},
		"with keepalive": keepalive,
	} {
		t.Run(name, func(t *testing.T) {
			c := newRig(t, func(o *Options) { change(o); o.Unacknowledged = most }).open(flow4).establish()
			res, _ := c.out(flow4, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 601, opts: tsOpt(stackTS+4, clientTS+1), data: 50})
			c.goes(res, false)
			c.pass(most)
			c.silent()
			c.request(1) // it is there, and busy
			c.pass(most)
			c.silent()
			g, _ := c.next(most/2 + testLate)
			c.wants(g, flow4, rst|ack, c.isn+51, irs+1)
			if len(c.ended) != 1 || c.ended[0] != (ending{flow4, Unacked}) {
				t.Errorf("ended %v", c.ended)
			}
			c.empty()
		})
	}
}

// TestUnacknowledgedAfterSilence: what a long silence has left in the record does not
// make the first bytes after it overdue, and those that are acknowledged are forgotten.
func TestUnacknowledgedAfterSilence(t *testing.T) {
	const most = 2 * time.Minute
	c := newRig(t, func(o *Options) { keepalive(o); o.Unacknowledged = most }).open(flow4).establish()
	said := uint32(0)
	for range 3 {
		for range 10 { // longer than most: the client is probed, and answers
			c.next(testIdle + testLate)
			res, _ := c.in(flow4, seg{flags: ack, seq: irs + 1, ack: c.isn + 1 + said, wnd: 500, opts: tsOpt(clientTS+1, c.ts)})
			c.goes(res, false)
		}
		res, _ := c.out(flow4, seg{flags: ack, seq: stackISN + 1 + said, ack: irs + 1, wnd: 601, opts: tsOpt(stackTS+4, clientTS+1), data: 50})
		c.goes(res, false)
		said += 50
		c.pass(testInterval) // on its way for so long
		c.silent()
		res, _ = c.in(flow4, seg{flags: ack, seq: irs + 1, ack: c.isn + 1 + said, wnd: 500, opts: tsOpt(clientTS+1, c.ts)})
		c.goes(res, false)
	}
	if len(c.ended) != 0 {
		t.Errorf("ended %v", c.ended)
	}
}
