package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// coFlow is a sender of TCP segments.
type coFlow struct {
	v6, partial     bool
	port            uint16
	seq, ack, clock uint32
	id, window, mss uint16
	df, tos, ttl    byte
	step            uint16 // of identification: 1, or 0
	last            coFrame
}

// segment builds the flow's next segment of n bytes and steps on.
func (f *coFlow) segment(n int, flags byte) coFrame {
	o := superOpts{v6: f.v6, options: 3, flags: TCPAck | flags, seq: f.seq, id: f.id}
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(int(f.seq) + i*7)
	}
	h, b := makeSuper(o, payload)
	l3 := 20
	if f.v6 {
		l3 = 40
		b[1], b[7] = f.tos<<4, f.ttl
	} else {
		b[1], b[6], b[8] = f.tos, f.df, f.ttl
	}
	binary.BigEndian.PutUint16(b[l3:], f.port)
	binary.BigEndian.PutUint32(b[l3+8:], f.ack)
	binary.BigEndian.PutUint16(b[l3+14:], f.window)
	binary.BigEndian.PutUint32(b[l3+24:], f.clock)
	f.seq += uint32(n)
	f.id += f.step
	f.last = sealed(b)
	if f.partial {
		f.last.hdr = Hdr{Flags: FlagNeedsCsum, CsumStart: h.CsumStart, CsumOffset: CsumOffsetTCP}
		sealTransport(f.last.b, ProtoTCP, l3, true)
	}
	return f.last
}

// odd builds a frame that is never merged, between the flow's.
func (f *coFlow) odd(kind byte) coFrame {
	switch kind % 6 {
	case 0:
		g := f.segment(int(f.mss), 0)
		g.hdr = Hdr{}
		return g
	case 1:
		return oddFrame(superOpts{v6: f.v6, udp: true})
	case 2:
		if !f.v6 {
			return oddFrame(superOpts{}, ip(6, 0x20))
		}
		return oddFrame(superOpts{v6: true, ipOptions: 1}, ip(6, extFragment), ip(43, 1))
	case 3:
		return sealedOptions(oddFrame(superOpts{v6: f.v6, ipOptions: 1, seq: f.seq}), f)
	case 4:
		return f.segment(0, 0)
	}
	o := superOpts{v6: f.v6, flags: TCPAck, size: 10, seq: f.seq}
	h, b := makeSuper(o, make([]byte, 25))
	return coFrame{hdr: h, b: b}
}

// sealedOptions gives a frame with IP options the flow's port.
func sealedOptions(g coFrame, f *coFlow) coFrame {
	l3 := 24
	if f.v6 {
		l3 = 48
	}
	binary.BigEndian.PutUint16(g.b[l3:], f.port)
	return g
}

// change alters what a sender may alter between two segments.
func (f *coFlow) change(what byte) {
	switch what % 12 {
	case 0:
		f.ack += 100
	case 1:
		f.clock++
	case 2:
		f.window++
	case 3:
		f.tos ^= 1
	case 4:
		f.ttl--
	case 5:
		f.df ^= 0x40
	case 6:
		f.step ^= 1
	case 7:
		f.id += 3
	case 8:
		f.partial = !f.partial
	case 9:
		f.mss = 1 + f.mss/2
	case 10:
		f.mss = min(8*f.mss, 9000)
	case 11:
		f.seq += uint32(f.mss) // lost on the way
	}
}

// stream turns a script into the frames of eight flows: two bytes a frame. Most of
// them are whole segments in order.
func stream(script []byte) (frames []coFrame) {
	flows := make([]coFlow, 8)
	for i := range flows {
		flows[i] = coFlow{
			v6: i%2 == 1, port: uint16(40000 + i/2), seq: uint32(i) << 29, id: uint16(i) << 13,
			mss: 40 << i, df: 0x40, ttl: 64, step: 1,
		}
	}
	for len(script) >= 2 && len(frames) < 300 {
		f, op, arg := &flows[script[0]&7], script[0]>>3, script[1]
		script = script[2:]
		switch op {
		default:
			frames = append(frames, f.segment(int(f.mss), 0))
		case 20:
			frames = append(frames, f.segment(1+int(arg)%int(f.mss), 0))
		case 21:
			frames = append(frames, f.segment(int(f.mss), TCPPsh))
		case 22:
			frames = append(frames, f.segment(int(f.mss), arg))
		case 23:
			frames = append(frames, f.segment(0, arg&TCPFin))
		case 24:
			if f.last.b != nil {
				frames = append(frames, f.last)
			}
		case 25:
			if n := len(frames); n > 1 {
				frames[n-1], frames[n-2] = frames[n-2], frames[n-1]
			}
		case 26:
			frames = append(frames, f.odd(arg))
		case 27:
			g := f.segment(int(f.mss), 0)
			g.b = append(bytes.Clone(g.b), make([]byte, arg%16)...)
			g.cut = min(40+int(arg), len(g.b))
			if l3 := map[bool]int{true: 40, false: 20}[f.v6]; g.cut < l3+32 {
				g.cut = 0
			}
			frames = append(frames, g)
		case 28, 29:
			f.change(arg)
		}
	}
	return frames
}

// tcpFlow names the flow of a TCP segment; "" for anything else.
func tcpFlow(p *Packet) string {
	if p.Proto != ProtoTCP || p.Fragment {
		return ""
	}
	return fmt.Sprint(p.Src, p.SrcPort, p.Dst, p.DstPort)
}

// model decides what a Coalescer should: it merges whatever splits again into the
// same bytes, and is slow.
type model struct {
	frames []coFrame
	room   int
	held   [][]int
	last   map[string]int // the latest of held of a flow
	out    [][]int
}

func (m *model) run() [][]int {
	m.last = map[string]int{}
	for i := range m.frames {
		m.add(i)
	}
	m.drain()
	return m.out
}

func (m *model) drain() {
	m.out = append(m.out, m.held...)
	m.held = nil
	clear(m.last)
}

func (m *model) add(i int) {
	p := m.parse(i)
	flow := tcpFlow(p)
	if flow == "" {
		if p.Fragment && p.Proto != ProtoUDP {
			m.drain()
		}
		m.out = append(m.out, []int{i})
		return
	}
	at, known := m.last[flow]
	if !known && (!m.mergeable(i) || p.TCPFlags&(TCPFin|TCPPsh) != 0) {
		m.out = append(m.out, []int{i})
		return
	}
	n := 0
	for _, ids := range m.held {
		n += len(ids)
	}
	if n == m.room {
		m.drain()
		m.add(i)
		return
	}
	if known && m.identity(m.held[at], i) {
		m.held[at] = append(m.held[at], i)
		return
	}
	m.last[flow] = len(m.held)
	m.held = append(m.held, []int{i})
}

func (m *model) parse(i int) *Packet {
	var p Packet
	Parse(&p, m.frames[i].b, len(m.frames[i].b))
	return &p
}

// mergeable reports whether Linux merges such a frame at all.
func (m *model) mergeable(i int) bool {
	f, p := m.frames[i], m.parse(i)
	return f.hdr.GSOType == GSONone && f.hdr.Flags != 0 && p.PayloadLen > 0 &&
		p.TCPFlags&(TCPSyn|TCPRst|TCPUrg) == 0 && p.L3Len == map[uint8]int{4: 20, 6: 40}[p.Version]
}

// identity reports whether there is a superframe that splits into the frames of
// group and frame i.
func (m *model) identity(group []int, i int) bool {
	for _, j := range append([]int{i}, group...) {
		if !m.mergeable(j) {
			return false
		}
	}
	group = append(slices.Clone(group), i)
	p := m.parse(group[0])
	hdrLen := p.L3Len + p.L4Len
	super := bytes.Clone(completed(m.frames[group[0]]))
	for _, j := range group[1:] {
		b := completed(m.frames[j])
		q := m.parse(j)
		super = append(super, b[q.L3Len+q.L4Len:]...)
		super[p.L3Len+13] |= q.TCPFlags & (TCPFin | TCPPsh)
	}
	if len(super) > 65535 {
		return false
	}
	h := Hdr{Flags: FlagNeedsCsum, GSOType: GSOTCPv6, GSOSize: uint16(p.PayloadLen), CsumOffset: CsumOffsetTCP}
	h.CsumStart = uint16(p.L3Len)
	fixed := false
	if p.Version == 4 {
		h.GSOType = GSOTCPv4
		binary.BigEndian.PutUint16(super[2:], uint16(len(super)))
		reseal4(super)
		fixed = super[6]&0x40 != 0
	} else {
		binary.BigEndian.PutUint16(super[4:], uint16(len(super)-40))
	}
	return m.splits(Segmenter{}, h, super, hdrLen, group) ||
		fixed && m.splits(Segmenter{FixedID: true}, h, super, hdrLen, group)
}

func (m *model) splits(s Segmenter, h Hdr, super []byte, hdrLen int, group []int) bool {
	var p Packet
	Parse(&p, super, len(super))
	if s.Reset(&h, &p, super[:hdrLen], [][]byte{super[hdrLen:]}) != OK {
		return false
	}
	var seg Segment
	for _, j := range group {
		if !s.Next(&seg) || !bytes.Equal(flatten(&seg), completed(m.frames[j])) {
			return false
		}
	}
	return !s.Next(&seg)
}

// orderFault looks for a frame that was lost, doubled or overtaken within its flow.
func orderFault(frames []coFrame, out [][]int) string {
	m := model{frames: frames}
	order := slices.Concat(out...)
	latest := map[string]int{}
	seen := make([]bool, len(frames))
	upTo := -1 // the highest frame so far
	for n, i := range order {
		if seen[i] {
			return fmt.Sprintf("frame %d twice", i)
		}
		seen[i] = true
		p := m.parse(i)
		if before, ok := latest[tcpFlow(p)]; ok && before > i {
			return fmt.Sprintf("frame %d after %d", i, before)
		}
		latest[tcpFlow(p)] = i
		upTo = max(upTo, i)
		if p.Fragment && p.Proto != ProtoUDP && (upTo != i || n != i) {
			return fmt.Sprintf("fragment %d at place %d", i, n)
		}
	}
	if len(order) != len(frames) {
		return "frames lost"
	}
	return ""
}

// checkCoalesce holds a Coalescer of a given room to the model. What fault and
// splitFault look for is checked for every packet that comes out.
func checkCoalesce(t *testing.T, frames []coFrame, room int) *batch {
	t.Helper()
	x := runBatch(t, NewCoalescer(room), frames)
	if why := orderFault(frames, x.out); why != "" {
		t.Fatalf("%s: %v", why, x.out)
	}
	m := model{frames: frames, room: room}
	if want := m.run(); !slices.EqualFunc(x.out, want, slices.Equal) {
		t.Fatalf("%v\n got %v\nwant %v", x.log, x.out, want)
	}
	return x
}

// TestCoalesceStreams holds the Coalescer to the model on random streams of eight
// flows with loss, reordering, duplicates and everything else a sender may do.
func TestCoalesceStreams(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	script := make([]byte, 400)
	merged := 0
	for round := range 60 {
		for i := range script {
			script[i] = byte(r.Uint32())
			if i%2 == 0 && round%2 == 0 { // fewer flows and events
				script[i] = byte(r.Uint32N(8*(1+r.Uint32N(32)))) &^ byte(round&6)
			}
		}
		x := checkCoalesce(t, stream(script), 1+int(r.Uint32N(128)))
		for _, ids := range x.out {
			merged += len(ids) - 1
		}
	}
	if merged < 60*20 {
		t.Errorf("only %d frames were merged", merged)
	}
}

// FuzzCoalesce: split of merge is identity, no flow is reordered, and all is merged
// that may be.
func FuzzCoalesce(f *testing.F) {
	f.Add(bytes.Repeat([]byte{7, 0}, 30), uint8(64))
	f.Add(bytes.Repeat([]byte{0, 0, 1, 0, 8, 0, 0xa8, 0}, 20), uint8(20))
	f.Add([]byte{0, 0, 0xe0, 6, 0, 0, 0, 0, 0, 0, 0xe0, 6, 0, 0}, uint8(9))
	f.Add([]byte{1, 0, 1, 0, 0xd1, 2, 1, 0, 0xd1, 3, 0xd1, 5, 1, 0, 0xc9, 0, 0xc1, 0}, uint8(9))
	f.Add([]byte{2, 0, 0xb2, 0x80, 2, 0, 0xb2, 0x80, 0xb2, 0x40, 0xda, 33, 0xda, 77}, uint8(9))
	f.Fuzz(func(t *testing.T, script []byte, room uint8) {
		checkCoalesce(t, stream(script), 1+int(room))
	})
}
