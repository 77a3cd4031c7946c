package offload

import (
	"bytes"
	"slices"
	"testing"
)

// pair is a segment and the next one, changed.
func pair(v6 bool, edits ...func([]byte)) []coFrame {
	return []coFrame{dataFrame(v6, 0), dataFrame(v6, 1, edits...)}
}

// run is segments 0 to n-1 with the same edits.
func run(v6 bool, n int, edits ...func([]byte)) (frames []coFrame) {
	for i := range n {
		frames = append(frames, dataFrame(v6, i, edits...))
	}
	return frames
}

// shorter cuts n bytes off a frame's end.
func shorter(f coFrame, n int) coFrame {
	b := bytes.Clone(f.b[:len(f.b)-n])
	if b[0]>>4 == 4 {
		b[2], b[3] = byte(len(b)>>8), byte(len(b))
	} else {
		b[4], b[5] = byte((len(b)-40)>>8), byte(len(b)-40)
	}
	return sealed(b)
}

// TestCoalesceTCP holds what tcp_gro_receive decides, the same over both IPs.
func TestCoalesceTCP(t *testing.T) {
	flags := func(f byte) func([]byte) { return tcp(13, TCPAck|f) }
	for _, v6 := range []bool{false, true} {
		d := func(i int, edits ...func([]byte)) coFrame { return dataFrame(v6, i, edits...) }
		other := func(i int, edits ...func([]byte)) coFrame { return d(i, append(edits, tcp(1, 0x41))...) }
		ack := func(i int) coFrame { return shorter(d(i), 100) }
		tests := []struct {
			name   string
			frames []coFrame
			want   string
		}{
			{"one", run(v6, 1), "held/first: 0"},
			{"in sequence", run(v6, 3), "held/first joined/none joined/none: 0+1+2"},
			{"sequence wraps", []coFrame{
				d(0, tcp(4, 255), tcp(5, 255), tcp(6, 255), tcp(7, 156)),
				d(1, tcp(4, 0), tcp(5, 0), tcp(6, 0), tcp(7, 0)),
			}, "held/first joined/none: 0+1"},
			{"ECE on all", run(v6, 2, flags(TCPEce)), "held/first joined/none: 0+1"},
			{"CWR on the first", []coFrame{d(0, flags(TCPCwr)), d(1)}, "held/first joined/none: 0+1"},
			{"PSH ends", []coFrame{d(0), d(1, flags(TCPPsh)), d(2)}, "held/first joined/none held/ended: 0+1 2"},
			{"FIN ends", []coFrame{d(0), d(1, flags(TCPFin|TCPPsh))}, "held/first joined/none: 0+1"},
			{
				"short ends",
				[]coFrame{d(0), shorter(d(1), 1), d(2)},
				"held/first joined/none held/ended: 0+1 2",
			},

			{"PSH first passes", []coFrame{d(0, flags(TCPPsh)), d(1)}, "pass/first held/first: 0 1"},
			{"FIN first passes", []coFrame{d(0, flags(TCPFin))}, "pass/first: 0"},
			{"SYN passes", []coFrame{d(0, flags(TCPSyn))}, "pass/tcp_flags: 0"},
			{"RST passes", []coFrame{d(0, flags(TCPRst))}, "pass/tcp_flags: 0"},
			{"URG passes", []coFrame{d(0, flags(TCPUrg))}, "pass/tcp_flags: 0"},
			{"ACK passes", []coFrame{ack(0), ack(0), d(0)}, "pass/no_payload pass/no_payload held/first: 0 1 2"},
			{"FIN without data passes", []coFrame{shorter(d(0, flags(TCPFin)), 100)}, "pass/no_payload: 0"},

			{"PSH after the end", []coFrame{d(0), d(2, flags(TCPPsh)), d(3)}, "held/first held/sequence held/ended: 0 1 2"},
			{"ACK keeps its place", []coFrame{d(0), ack(1), d(1)}, "held/first held/no_payload held/ended: 0 1 2"},
			{"RST keeps its place", pair(v6, flags(TCPRst)), "held/first held/tcp_flags: 0 1"},
			{"SYN keeps its place", pair(v6, flags(TCPSyn)), "held/first held/tcp_flags: 0 1"},
			{"URG keeps its place", pair(v6, flags(TCPUrg)), "held/first held/tcp_flags: 0 1"},
			{"CWR later", pair(v6, flags(TCPCwr)), "held/first held/tcp_flags: 0 1"},
			{"CWR twice", run(v6, 2, flags(TCPCwr)), "held/first held/tcp_flags: 0 1"},
			{"ECE begins", pair(v6, flags(TCPEce)), "held/first held/header: 0 1"},
			{"accurate ECN", pair(v6, func(b []byte) { tcp(12, b[len(b)-120]|1)(b) }), "held/first held/header: 0 1"},
			{"no ACK flag", pair(v6, tcp(13, 0)), "held/first held/header: 0 1"},
			{"ACK number", pair(v6, tcp(11, 1)), "held/first held/header: 0 1"},
			{"window", pair(v6, tcp(15, 1)), "held/first held/header: 0 1"},
			{"urgent pointer", pair(v6, tcp(19, 1)), "held/first held/header: 0 1"},
			{"option", pair(v6, tcp(20, 0)), "held/first held/header: 0 1"},
			{"last option", pair(v6, tcp(31, 0)), "held/first held/header: 0 1"},
			{"fewer options", pair(v6, tcp(12, 0x70)), "held/first held/header: 0 1"},

			{"lost", []coFrame{d(0), d(2), d(3)}, "held/first held/sequence joined/none: 0 1+2"},
			{"twice", []coFrame{d(0), d(1), d(1)}, "held/first joined/none held/sequence: 0+1 2"},
			{"late", []coFrame{d(1), d(0), d(2)}, "held/first held/sequence held/sequence: 0 1 2"},
			{"longer", []coFrame{shorter(d(0), 1), d(1, tcp(7, 0x4b))}, "held/first held/size: 0 1"},

			{
				"two flows",
				[]coFrame{d(0), other(0), d(1), other(1)},
				"held/first held/first joined/none joined/none: 0+2 1+3",
			},
			{
				"a flow stays in order, another need not",
				[]coFrame{d(0), other(5, flags(TCPPsh)), d(2), other(6), d(3)},
				"held/first pass/first held/sequence held/first joined/none: 1 0 2+4 3",
			},
			{"no room", run(v6, 9), "held/first" + " joined/none joined/none joined/none joined/none joined/none joined/none joined/none" +
				" drain/full held/first: 0+1+2+3+4+5+6+7 8"},
		}
		c := NewCoalescer(8)
		for _, tt := range tests {
			if got := runBatch(t, c, tt.frames).String(); got != tt.want {
				t.Errorf("IPv6 %v: %s:\n got %s\nwant %s", v6, tt.name, got, tt.want)
			}
		}
	}
}

// TestCoalesceIP holds what the IP layers decide: inet_gro_receive, inet_gro_flush,
// ipv6_gro_receive, ipv6_gro_flush.
func TestCoalesceIP(t *testing.T) {
	ids := func(df byte, ids ...byte) (frames []coFrame) {
		for i, id := range ids {
			frames = append(frames, dataFrame(false, i, ip(4, 0), ip(5, id), ip(6, df)))
		}
		return frames
	}
	v4, v6 := run(false, 3), run(true, 3)
	tests := []struct {
		name   string
		frames []coFrame
		want   string
	}{
		{"consecutive identification, from 65535 on", v4, "held/first joined/none joined/none: 0+1+2"},
		{"consecutive without DF", ids(0, 7, 8, 9), "held/first joined/none joined/none: 0+1+2"},
		{"fixed with DF", ids(0x40, 7, 7, 7), "held/first joined/none joined/none: 0+1+2"},
		{"fixed without DF", ids(0, 7, 7), "held/first held/ip_id: 0 1"},
		{"identification lost", ids(0x40, 7, 9), "held/first held/ip_id: 0 1"},
		{"identification back", ids(0x40, 7, 6), "held/first held/ip_id: 0 1"},
		{"fixed, then not", ids(0x40, 7, 7, 8), "held/first joined/none held/ip_id: 0+1 2"},
		{"not fixed, then fixed", ids(0x40, 7, 8, 8), "held/first joined/none held/ip_id: 0+1 2"},
		{"fixed, then as if it had not been", ids(0x40, 7, 7, 9), "held/first joined/none held/ip_id: 0+1 2"},
		{"DF", pair(false, ip(6, 0)), "held/first held/header: 0 1"},
		{"TOS", pair(false, ip(1, 1)), "held/first held/header: 0 1"},
		{"TTL", pair(false, ip(8, 63)), "held/first held/header: 0 1"},
		{"source", pair(false, ip(15, 9)), "held/first held/first: 0 1"},
		{"destination", pair(false, ip(19, 9)), "held/first held/first: 0 1"},
		{"source port", pair(false, tcp(1, 9)), "held/first held/first: 0 1"},
		{"destination port", pair(false, tcp(3, 9)), "held/first held/first: 0 1"},
		{"traffic class", pair(true, ip(1, 0x30)), "held/first held/header: 0 1"},
		{"flow label", pair(true, ip(3, 1)), "held/first held/header: 0 1"},
		{"hop limit", pair(true, ip(7, 63)), "held/first held/header: 0 1"},
		{"IPv6 source", pair(true, ip(23, 9)), "held/first held/first: 0 1"},
		{"IPv6 destination", pair(true, ip(39, 9)), "held/first held/first: 0 1"},
		{
			"IPv4 and IPv6",
			[]coFrame{v4[0], v6[0], v4[1], v6[1]},
			"held/first held/first joined/none joined/none: 0+2 1+3",
		},
	}
	for _, tt := range tests {
		if got := runBatch(t, NewCoalescer(8), tt.frames).String(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// oddFrame is a frame that is never merged, over the addresses of dataFrame.
func oddFrame(o superOpts, edits ...func([]byte)) coFrame {
	o.flags, o.size = TCPAck, 10
	_, b := makeSuper(o, make([]byte, 20))
	for _, e := range edits {
		e(b)
	}
	if b[0]>>4 == 4 {
		reseal4(b)
	}
	return coFrame{hdr: verified, b: b}
}

// TestCoalesceOther holds what becomes of frames that are never merged, alone and
// between two that would be.
func TestCoalesceOther(t *testing.T) {
	superHdr, super := makeSuper(superOpts{size: 50, options: 3, flags: TCPAck, seq: 1100}, make([]byte, 100))
	fragment6 := oddFrame(superOpts{v6: true, ipOptions: 2}, ip(6, extFragment), ip(43, 1))
	opaque6 := oddFrame(superOpts{v6: true, ipOptions: 2}, ip(6, extFragment), ip(43, 1), ip(40, extDstOptions))
	unverified := dataFrame(false, 1)
	unverified.hdr = Hdr{}
	tests := []struct {
		name           string
		frame          coFrame
		alone, between string
	}{
		{"UDP", oddFrame(superOpts{udp: true}), "pass/not_tcp: 0", "held/first pass/not_tcp joined/none: 1 0+2"},
		{
			"UDP fragment", oddFrame(superOpts{udp: true}, ip(6, 0x20)),
			"pass/not_tcp: 0", "held/first pass/not_tcp joined/none: 1 0+2",
		},
		{
			"TCP fragment", oddFrame(superOpts{}, ip(6, 0x20)),
			"pass/fragment: 0", "held/first drain/fragment pass/fragment held/first: 0 1 2",
		},
		{
			"IPv6 fragment", fragment6,
			"pass/fragment: 0", "held/first drain/fragment pass/fragment held/first: 0 1 2",
		},
		{
			"IPv6 fragment with more headers", opaque6,
			"pass/fragment: 0", "held/first drain/fragment pass/fragment held/first: 0 1 2",
		},
		{
			"IPv4 options", oddFrame(superOpts{ipOptions: 1}),
			"pass/ip_options: 0", "held/first held/ip_options held/ended: 0 1 2",
		},
		{
			"extension headers", oddFrame(superOpts{v6: true, ipOptions: 1}),
			"pass/ip_options: 0", "held/first held/ip_options held/ended: 0 1 2",
		},
		{"unverified", unverified, "pass/unverified: 0", "held/first held/unverified held/ended: 0 1 2"},
		{
			"superframe",
			coFrame{hdr: superHdr, b: super},
			"pass/superframe: 0", "held/first held/superframe held/ended: 0 1 2",
		},
	}
	c := NewCoalescer(8)
	for _, tt := range tests {
		if got := runBatch(t, c, []coFrame{tt.frame}).String(); got != tt.alone {
			t.Errorf("%s alone:\n got %s\nwant %s", tt.name, got, tt.alone)
		}
		v6 := tt.frame.b[0]>>4 == 6
		frames := []coFrame{dataFrame(v6, 0), tt.frame, dataFrame(v6, 1)}
		if got := runBatch(t, c, frames).String(); got != tt.between {
			t.Errorf("%s between:\n got %s\nwant %s", tt.name, got, tt.between)
		}
	}
}

// A frame may come in two pieces, cut anywhere behind its headers, and with padding.
func TestCoalescePieces(t *testing.T) {
	for cut := 52; cut <= 160; cut++ {
		frames := []coFrame{dataFrame(false, 0), shorter(dataFrame(false, 1), 50), dataFrame(false, 2)}
		for i := range frames {
			frames[i].b = append(frames[i].b, make([]byte, 7)...)
			frames[i].cut = min(cut, len(frames[i].b))
		}
		const want = "held/first joined/none held/ended: 0+1 2"
		if got := runBatch(t, NewCoalescer(3), frames).String(); got != want {
			t.Fatalf("cut at %d: %s", cut, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a frame shorter than its packet was taken")
		}
	}()
	f := dataFrame(false, 0)
	var p Packet
	Parse(&p, f.b, len(f.b))
	NewCoalescer(1).Add(&f.hdr, &p, Frame{Head: f.b[:60], Payload: f.b[60:151]})
}

// The segments of a golden superframe become that superframe, which carries CWR.
func TestCoalesceGolden(t *testing.T) {
	frames := []coFrame{{hdr: verified, b: unhex(goldenSegments4[0])}}
	for _, s := range goldenSegments4[1:] {
		frames = append(frames, coFrame{hdr: verified, b: unhex(s)})
	}
	c := NewCoalescer(len(frames))
	for i, f := range frames {
		var p Packet
		Parse(&p, f.b, len(f.b))
		c.Add(&f.hdr, &p, Frame{Head: f.b, ID: i})
	}
	want := hdrSuper4
	want.GSOType |= GSOECN
	var m Merged
	if !c.Next(&m) || m.Hdr != want {
		t.Fatalf("header %+v, want %+v", m.Hdr, want)
	}
	if got, want := slices.Concat(append([][]byte{m.Head}, m.Payload...)...), unhex(goldenSuper4); !bytes.Equal(got, want) {
		t.Errorf("\n got % x\nwant % x", got, want)
	}
}

// A superframe ends at 65535 bytes, and one of partial checksums has one of its own.
func TestCoalesceLongest(t *testing.T) {
	tests := []struct {
		v6      bool
		payload int
		want    int // frames in the first superframe
	}{
		{false, 1448, 45},
		{true, 1428, 45},
		{false, 13099, 5},
		{true, 13095, 5}, // 65535 bytes
		{false, 8187, 7},
		{true, 16369, 3}, // one more frame would make 65536
	}
	for _, tt := range tests {
		var frames []coFrame
		for i := range tt.want + 2 {
			o := superOpts{v6: tt.v6, flags: TCPAck, seq: uint32(tt.payload * i), id: uint16(i)}
			h, b := makeSuper(o, make([]byte, tt.payload))
			h.GSOType, h.GSOSize = GSONone, 0
			frames = append(frames, coFrame{hdr: h, b: b})
		}
		x := runBatch(t, NewCoalescer(64), frames)
		if len(x.out) != 2 || len(x.out[0]) != tt.want || x.log[tt.want] != "held/size" {
			t.Errorf("%+v: %v", tt, x)
		}
	}
}

// Between the first packet taken out and the last, nothing is taken in that could
// overtake or join what is still there; what cannot, passes.
func TestCoalesceHalfDrained(t *testing.T) {
	c := NewCoalescer(8)
	frames := run(false, 3)
	frames = append(frames, dataFrame(false, 0, tcp(1, 0x41), tcp(13, TCPAck|TCPPsh)))
	add := func(i int) (Fate, Bar) {
		var p Packet
		Parse(&p, frames[i].b, len(frames[i].b))
		return c.Add(&frames[i].hdr, &p, Frame{Head: frames[i].b, ID: i})
	}
	add(0)
	add(2)
	var m Merged
	c.Next(&m)
	if fate, bar := add(1); fate != Drain || bar != BarFull {
		t.Errorf("its flow: %v/%v", fate, bar)
	}
	if fate, _ := add(3); fate != Pass {
		t.Errorf("another flow: %v", fate)
	}
	if !c.Next(&m) || m.IDs[0] != 2 || c.Next(&m) {
		t.Errorf("%v", m.IDs)
	}
	if fate, _ := add(1); fate != Held {
		t.Errorf("after the end: %v", fate)
	}
}

// Whoever drops a Coalescer's last packet drops the last reference to its bytes.
func TestCoalesceForgets(t *testing.T) {
	c := NewCoalescer(8)
	runBatch(t, c, run(true, 8))
	for _, f := range c.frames[:cap(c.frames)] {
		if f.Head != nil || f.Payload != nil {
			t.Fatal("a frame is still referred to")
		}
	}
	for _, b := range c.vec[:cap(c.vec)] {
		if b != nil {
			t.Fatal("a piece is still referred to")
		}
	}
}

// Fates and bars are metric labels, each with a name of its own.
func TestCoalesceNames(t *testing.T) {
	seen := map[string]bool{}
	for f := range NumFates + 1 {
		seen[f.String()] = true
	}
	if len(seen) != int(NumFates)+1 {
		t.Errorf("fates: %v", seen)
	}
	clear(seen)
	for b := range NumBars + 1 {
		seen[b.String()] = true
	}
	if len(seen) != int(NumBars)+1 || seen[""] {
		t.Errorf("bars: %v", seen)
	}
}
