package netstack_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev/tuntest"
)

// faults are what a wire does to packets: shares of 1, and times.
type faults struct {
	loss, duplicate, reorder, corrupt float64
	delay, jitter                     time.Duration
	late                              time.Duration // of what is overtaken, at most
	outage                            time.Duration // nothing passes for so long, now and then
}

// wire carries packets between the clients' stack and the device of the stack under
// test, both ways, and does its faults to them.
type wire struct {
	s      *sim
	faults faults
	client *channel.Endpoint
	device *tuntest.Device
	queues int
	boxes  map[tuple]*middlebox
	dead   map[tuple]bool    // flows that nothing passes for any more
	last   map[tuple]*script // whose packet arrived last
	sender map[tuple]*script // whose connection is at it
	arrive [2]time.Duration
	outage time.Duration // until then
	cut    offload.Segmenter
	count  struct{ carried, lost, duplicated, late, corrupted int }
}

// Directions.
const (
	up   = iota // client to stack
	down        // stack to client
)

// collect takes what both sides have sent and reports whether that was anything.
func (w *wire) collect() (any bool) {
	for pkt := w.client.Read(); pkt != nil; pkt = w.client.Read() {
		v := pkt.ToView()
		b := slices.Clone(v.AsSlice())
		v.Release()
		pkt.DecRef()
		w.send(up, b)
		any = true
	}
	for f := w.device.Recv(0); f != nil; f = w.device.Recv(0) {
		w.split(f)
		any = true
	}
	return any
}

// split does what a NIC does to a frame: it completes its checksum, and cuts it if it
// is a superframe.
func (w *wire) split(f []byte) {
	var h offload.Hdr
	var p offload.Packet
	h.Decode(f)
	b := f[tuntest.HdrLen:]
	if v := offload.Parse(&p, b, len(b)); v != offload.OK {
		w.s.fail("the stack sent a frame that does not parse: %v", v)
		return
	}
	switch {
	case h.IsSuper():
		hl := p.L3Len + p.L4Len
		if v := w.cut.Reset(&h, &p, b[:hl], [][]byte{b[hl:]}); v != offload.OK {
			w.s.fail("the stack sent a superframe that cannot be cut: %v", v)
			return
		}
		var out offload.Segment
		for w.cut.Next(&out) {
			w.send(down, slices.Concat(append([][]byte{out.Head}, out.Payload...)...))
		}
		return
	case h.Flags&offload.FlagNeedsCsum != 0:
		offload.Complete(&h, [][]byte{b})
	}
	w.send(down, b)
}

// flowOf returns the flow of a TCP packet as its client sees it.
func flowOf(p *offload.Packet, way int) tuple {
	t := tuple{src: addrPort(p.Src, p.SrcPort), dst: addrPort(p.Dst, p.DstPort)}
	if way == down {
		t.src, t.dst = t.dst, t.src
	}
	return t
}

// send lets a packet arrive: once, later, twice, or never.
func (w *wire) send(way int, b []byte) {
	var p offload.Packet
	if v := offload.Parse(&p, b, len(b)); v != offload.OK {
		w.s.fail("a packet that does not parse: %v", v)
		return
	}
	flow := flowOf(&p, way)
	w.trace(way, "", b, &p)
	if way == up && p.Proto == offload.ProtoTCP {
		w.box(flow).change(up, b, &p)
	}
	f, rnd := w.faults, w.s.rnd
	now := w.s.clock.elapsed()
	w.count.carried++
	if f.outage > 0 && rnd.Float64() < 1e-3 {
		w.outage = now + time.Duration(rnd.Int64N(int64(f.outage)))
	}
	if w.dead[flow] || now < w.outage || rnd.Float64() < f.loss {
		w.count.lost++
		w.trace(way, "lost", b, &p)
		return
	}
	if way == up && p.Proto == offload.ProtoTCP && p.TCPFlags&offload.TCPSyn != 0 {
		w.sender[flow] = w.s.current[flow] // not before: the last one may still have something to say
	}
	c := w.sender[flow]
	w.schedule(way, now, b, c)
	if rnd.Float64() < f.duplicate {
		w.count.duplicated++
		w.schedule(way, now, slices.Clone(b), c)
	}
}

// schedule sets the time of an arrival: in order, unless it is late. c is the script
// that the packet is of.
func (w *wire) schedule(way int, now time.Duration, b []byte, c *script) {
	f, rnd := w.faults, w.s.rnd
	at := now + f.delay + upTo(rnd, f.jitter)
	if rnd.Float64() < f.reorder {
		w.count.late++
		at += upTo(rnd, f.late)
	} else {
		at = max(at, w.arrive[way])
		w.arrive[way] = at
	}
	corrupt := -1
	if rnd.Float64() < f.corrupt {
		w.count.corrupted++
		corrupt = rnd.IntN(len(b))
	}
	arrive := func() {
		if way == up && c != nil {
			w.last[c.flow] = c
		}
		w.deliver(way, b, corrupt)
	}
	w.s.clock.AfterFunc(at-now, func() {
		if way == up && c != nil && w.last[c.flow] != nil && w.last[c.flow] != c {
			// In no burst with another connection of its tuple, or an attempt
			// could not be told whose it is.
			w.s.clock.AfterFunc(time.Microsecond, arrive)
			return
		}
		arrive()
	})
}

func upTo(rnd *rand.Rand, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(rnd.Int64N(int64(most)))
}

// deliver gives a packet to the other side, with a byte changed if corrupt is one's
// index.
func (w *wire) deliver(way int, b []byte, corrupt int) {
	var p offload.Packet
	if offload.Parse(&p, b, len(b)) != offload.OK {
		return
	}
	flow := flowOf(&p, way)
	if way == down && p.Proto == offload.ProtoTCP {
		w.box(flow).change(down, b, &p)
	}
	w.trace(way, "arrives", b, &p)
	if corrupt >= 0 {
		b[corrupt] ^= 1 << w.s.rnd.IntN(8)
	}
	if way == up {
		// The kernel sends a flow by one queue, but for the time when it
		// learns another.
		queue := int(flow.src.Port())
		if w.s.rnd.IntN(50) == 0 {
			queue++
		}
		w.device.SendOn(queue%w.queues, append(make([]byte, tuntest.HdrLen), b...))
		return
	}
	proto := header.IPv4ProtocolNumber
	if p.Version == 6 {
		proto = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	w.client.InjectInbound(proto, pkt)
	pkt.DecRef()
}

func (w *wire) box(t tuple) *middlebox {
	m := w.boxes[t]
	if m == nil {
		m = newMiddlebox(w.s.rnd)
		w.boxes[t] = m
	}
	return m
}
