package minisock

import (
	"testing"
	"time"
)

// TestAllocs: no packet allocates, whatever becomes of it.
func TestAllocs(t *testing.T) {
	q := &quiet{}
	o := Options{Shards: 4, Backlog: 100, ResetRate: 1e9, ChallengeRate: 1e9, InvalidInterval: -1, SynAckRetries: 6, HandshakeTimeout: 100 * time.Second, KeepaliveIdle: time.Second}
	for _, p := range []pair{flow4, flow6} {
		tab, err := New(o, q)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Hour
		packet := func(p pair, s seg) Segment { return describe(t, raw(p, s), false, 1) }
		hello, stray := packet(p, seg{flags: syn, seq: irs, opts: linuxSYN()}), packet(p, seg{flags: ack, seq: 1, ack: 1})
		other := p
		other.src = flow4.dst
		if p == flow6 {
			other.src = flow6.dst
		}
		tab.Inbound(&hello, now) // stays
		crowd(t, tab, 100)
		k := crowdKey(7)
		cp := pair{k.client(), k.destination()}
		in := packet(cp, seg{flags: ack, seq: 1000, ack: 78, opts: tsOpt(1, 100)})
		reset := packet(cp, seg{flags: rst, seq: 1005})
		out := packet(cp.back(), seg{flags: ack, seq: 1, ack: 1000, opts: tsOpt(1, 100)})
		batch := [3]Segment{in, hello, stray}
		for name, f := range map[string]func(){
			"inbound":         func() { tab.Inbound(&in, now) },
			"outbound":        func() { tab.Outbound(&out, now) },
			"challenge":       func() { tab.Inbound(&reset, now) },
			"duplicate SYN":   func() { tab.Inbound(&hello, now) },
			"RST to no flow":  func() { s := stray; tab.Inbound(&s, now) },
			"Tick with work":  func() { now += time.Second; tab.Tick(now) },
			"Tick":            func() { tab.Tick(now) },
			"Next":            func() { tab.Next(now) },
			"Probe":           func() { now += 10 * time.Millisecond; tab.Probe(now) },
			"EndIdle":         func() { tab.EndIdle(1, 0, now) },
			"Stats":           func() { tab.Stats() },
			"Prefetch":        func() { tab.Prefetch(batch[:]) },
			"a SYN and a RST": func() { flip(tab, other, now) },
		} {
			f() // what is pooled is there afterwards
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
	if q.packets == 0 {
		t.Error("nothing was sent")
	}
}

var flipBuf [2][]byte

// flip opens a flow and resets it.
func flip(tab *Table, p pair, now time.Duration) {
	if flipBuf[0] == nil || flipBuf[0][0]>>4 == 4 != p.src.Addr().Is4() {
		flipBuf[0], flipBuf[1] = raw(p, seg{flags: syn, seq: 5}), raw(p, seg{flags: rst, seq: 6})
	}
	l3 := 40
	if p.src.Addr().Is4() {
		l3 = 20
	}
	for _, b := range flipBuf {
		s := Segment{IP: b[:l3], TCP: b[l3:]}
		tab.Inbound(&s, now)
	}
}
