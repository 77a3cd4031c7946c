package offload

import "testing"

// benchBatch is a batch of n full segments each of some flows, taking turns.
type benchBatch struct {
	c      *Coalescer
	hdr    Hdr
	frames [][]byte
	parsed []Packet
}

func newBenchBatch(v6 bool, flows, n int) *benchBatch {
	x := &benchBatch{c: NewCoalescer(flows * n), hdr: verified}
	for i := range n {
		for flow := range flows {
			o := superOpts{v6: v6, options: 3, flags: TCPAck, seq: uint32(1428 * i), id: uint16(i)}
			_, b := makeSuper(o, make([]byte, 1428))
			tcp(1, byte(flow))(b)
			var p Packet
			if Parse(&p, b, len(b)) != OK {
				panic("bad frame")
			}
			x.frames = append(x.frames, b)
			x.parsed = append(x.parsed, p)
		}
	}
	return x
}

// run merges the batch and returns the number of packets.
func (x *benchBatch) run() (packets int) {
	for i := range x.frames {
		x.c.Add(&x.hdr, &x.parsed[i], Frame{Head: x.frames[i], ID: i})
	}
	var m Merged
	for x.c.Next(&m) {
		packets++
	}
	return packets
}

// TestCoalesceAllocs holds the coalescer to no allocation.
func TestCoalesceAllocs(t *testing.T) {
	for _, flows := range []int{1, 8, 44} {
		x := newBenchBatch(flows == 8, flows, 44)
		n := testing.AllocsPerRun(10, func() {
			if got := x.run(); got != flows {
				t.Fatalf("%d packets", got)
			}
		})
		if n != 0 {
			t.Errorf("%d flows: %v allocations", flows, n)
		}
	}
}

// BenchmarkCoalesce merges batches of full segments; ns/seg is what one costs, from
// Add to its part of the superframe.
func BenchmarkCoalesce(b *testing.B) {
	for _, bm := range []struct {
		name     string
		v6       bool
		flows, n int
	}{
		{"44to1v4", false, 1, 44}, {"44to1v6", true, 1, 44}, {"8FlowsOf11", false, 8, 11}, {"88FlowsOf1", false, 88, 1},
	} {
		b.Run(bm.name, func(b *testing.B) {
			x := newBenchBatch(bm.v6, bm.flows, bm.n)
			for b.Loop() {
				x.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x.frames)), "ns/seg")
		})
	}
}

// BenchmarkCoalescePass is what a bare acknowledgment costs a device that sends
// them: nothing of its flow is held.
func BenchmarkCoalescePass(b *testing.B) {
	f := shorter(dataFrame(false, 0), 100)
	var p Packet
	Parse(&p, f.b, len(f.b))
	c := NewCoalescer(64)
	for b.Loop() {
		c.Add(&f.hdr, &p, Frame{Head: f.b})
	}
}
