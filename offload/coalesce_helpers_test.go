package offload

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// coFrame is a frame for a Coalescer.
type coFrame struct {
	hdr Hdr
	b   []byte
	cut int // length of Head; 0 for all of it
}

var verified = Hdr{Flags: FlagDataValid}

// dataFrame is segment i of a flow, 100 bytes of payload under a header with
// timestamps, changed by each edit before its checksums are made.
func dataFrame(v6 bool, i int, edits ...func([]byte)) coFrame {
	o := superOpts{v6: v6, options: 3, flags: TCPAck, seq: uint32(1000 + 100*i), id: uint16(0xffff + i)}
	_, b := makeSuper(o, bytes.Repeat([]byte{byte('a' + i)}, 100))
	return sealed(b, edits...)
}

// sealed edits a TCP frame and makes its checksums right.
func sealed(b []byte, edits ...func([]byte)) coFrame {
	for _, e := range edits {
		e(b)
	}
	l3 := 40
	if b[0]>>4 == 4 {
		l3 = int(b[0]&15) * 4
		reseal4(b)
	}
	return coFrame{hdr: verified, b: sealTransport(b, ProtoTCP, l3, false)}
}

// ip sets byte i of the IP header.
func ip(i int, x byte) func([]byte) { return func(b []byte) { b[i] = x } }

// tcp sets byte i of the TCP header.
func tcp(i int, x byte) func([]byte) {
	return func(b []byte) {
		if b[0]>>4 == 6 {
			b[40+i] = x
		} else {
			b[20+i] = x
		}
	}
}

// batch drives a Coalescer as a link does and keeps what came out.
type batch struct {
	t      *testing.T
	c      *Coalescer
	frames []coFrame
	log    []string // fate/bar of each Add
	out    [][]int  // frames of each packet, in order of delivery
}

func runBatch(t *testing.T, c *Coalescer, frames []coFrame) *batch {
	t.Helper()
	x := &batch{t: t, c: c, frames: frames}
	for i := range frames {
		x.add(i)
	}
	x.drain()
	return x
}

func (x *batch) add(i int) {
	x.t.Helper()
	f := x.frames[i]
	var p Packet
	if v := Parse(&p, f.b, len(f.b)); v != OK {
		x.t.Fatalf("frame %d: %v: % x", i, v, f.b)
	}
	if v := f.hdr.Check(&p); v != OK {
		x.t.Fatalf("frame %d: %v", i, v)
	}
	frame := Frame{Head: f.b, ID: i}
	if f.cut > 0 {
		frame.Head, frame.Payload = f.b[:f.cut:f.cut], f.b[f.cut:]
	}
	fate, bar := x.c.Add(&f.hdr, &p, frame)
	x.log = append(x.log, fate.String()+"/"+bar.String())
	switch fate {
	case Pass:
		x.out = append(x.out, []int{i})
	case Drain:
		x.drain()
		x.add(i)
	case Held, Joined, NumFates:
	}
}

func (x *batch) drain() {
	x.t.Helper()
	var m Merged
	for x.c.Next(&m) {
		x.out = append(x.out, slices.Clone(m.IDs))
		if why := x.fault(&m); why != "" {
			x.t.Fatalf("packet of %v: %s\n%+v", m.IDs, why, m)
		}
	}
	if x.c.Len() != 0 || m.Head != nil {
		x.t.Fatal("not empty, or still holding the caller's bytes")
	}
}

// fault looks for what is wrong with a packet, the plain way.
func (x *batch) fault(m *Merged) string {
	whole := slices.Concat(append([][]byte{m.Head}, m.Payload...)...)
	var p Packet
	if v := Parse(&p, whole, len(whole)); v != OK {
		return v.String()
	}
	first := x.frames[m.IDs[0]]
	switch {
	case p != m.Packet || p.Len != len(whole) || len(m.Head) != p.L3Len+p.L4Len:
		return fmt.Sprintf("parsed as %+v", p)
	case len(whole) > 65535:
		return "too long"
	case m.Hdr.Check(&p) != OK:
		return "header refused"
	case len(m.IDs) == 1 && m.Hdr != first.hdr:
		return "header changed"
	case len(m.IDs) == 1 && !bytes.Equal(whole, first.b[:p.Len]):
		return "frame changed"
	case len(m.IDs) == 1:
		return ""
	case naiveSum(naivePseudo(whole, ProtoTCP, len(whole)-p.L3Len)) != uint16(be16(whole[p.L3Len+16:])):
		return "partial checksum"
	case p.Version == 4 && naiveSum(whole[:p.L3Len]) != 0xffff:
		return "IP checksum"
	}
	return x.splitFault(m)
}

// splitFault looks for a difference between the frames and what a Segmenter makes of
// their merge.
func (x *batch) splitFault(m *Merged) string {
	s := Segmenter{FixedID: m.FixedID}
	if v := s.Reset(&m.Hdr, &m.Packet, m.Head, m.Payload); v != OK {
		return "segmenter: " + v.String()
	}
	var seg Segment
	for _, id := range m.IDs {
		if !s.Next(&seg) {
			return "too few segments"
		}
		if want := completed(x.frames[id]); !bytes.Equal(flatten(&seg), want) {
			return fmt.Sprintf("segment of frame %d\n got % x\nwant % x", id, flatten(&seg), want)
		}
	}
	if s.Next(&seg) {
		return "too many segments"
	}
	return ""
}

// completed is a TCP frame without padding, with its checksum complete.
func completed(f coFrame) []byte {
	n, l3 := be16(f.b[2:]), int(f.b[0]&15)*4
	if f.b[0]>>4 == 6 {
		n, l3 = 40+be16(f.b[4:]), 40
	}
	b := bytes.Clone(f.b[:n])
	if f.hdr.Flags&FlagNeedsCsum != 0 {
		sealTransport(b, ProtoTCP, l3, false)
	}
	return b
}

// String is the log and the packets: "held/first joined/none: 0+1".
func (x *batch) String() string {
	var packets []string
	for _, ids := range x.out {
		s := strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", "+")
		packets = append(packets, s)
	}
	return strings.Join(x.log, " ") + ": " + strings.Join(packets, " ")
}
