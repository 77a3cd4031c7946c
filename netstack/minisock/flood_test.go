package minisock

import (
	"testing"
	"time"
)

// TestFlood: while SYNs of invented sources come, real clients get through, and the
// table stays as small as it was told to.
func TestFlood(t *testing.T) {
	r := newRig(t, nil)
	q := &quiet{}
	r.t.sink = q
	flood := func(from, n int) {
		for i := from; i < from+n; i++ {
			p := flow4
			p.src = addrPort([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)}, 1234)
			b := raw(p, seg{flags: syn, seq: uint32(i), opts: linuxSYN()})
			s := Segment{IP: b[:20], TCP: b[20:]}
			r.t.Inbound(&s, r.now)
		}
	}
	sent := 0
	for i := range 50 {
		flood(sent, 1000)
		sent += 1000
		r.tick(10 * time.Millisecond)
		r.t.sink = r
		p := flow4
		p.src = addrPort([4]byte{198, 18, 0, 50}, uint16(2000+i))
		r.sent = nil
		r.open(p).establish()
		r.sent = nil
		r.t.sink = q
		if s := r.t.Stats(); s.HalfOpen > 4096 || s.Records > 4096+i+1 {
			t.Fatalf("%d half-open, %d records", s.HalfOpen, s.Records)
		}
	}
	if n := r.t.Stats().States[Established]; n != 50 {
		t.Errorf("%d of 50 got through", n)
	}
	for range 12 {
		r.tick(time.Second)
	}
	if s := r.t.Stats(); s.HalfOpen != 0 || s.Records != 50 {
		t.Errorf("%d half-open, %d records after the flood", s.HalfOpen, s.Records)
	}
}

// TestDeadHost: dials to a host that never answers leave room for others.
func TestDeadHost(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Admission, o.Overflow = DialFirst, OverflowDrop })
	dial := func(i int, dst byte) Verdict {
		p := flow4
		p.src = addrPort([4]byte{198, 18, byte(i >> 8), byte(i)}, 999)
		p.dst = addrPort([4]byte{203, 0, 113, dst}, 80)
		res, _ := r.in(p, seg{flags: syn, seq: irs})
		return res.Verdict
	}
	n := 0
	for i := range 5000 {
		if dial(i, 1) == Dial {
			n++
		}
	}
	if n != 2048 {
		t.Errorf("%d dials to the dead host", n)
	}
	for i := range 1000 {
		if dial(i, 2) != Dial {
			t.Fatalf("dial %d to a live host is refused", i)
		}
	}
}
