package link

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tungate/tungate/offload"
)

const (
	// mergeFrames is the batch of a device that delivers MTU-sized frames: a
	// full superframe is 45 of them, and two flows may take turns.
	mergeFrames = 128
	// mergeMTU is the largest MTU for which merging pays: past it four frames
	// fill a packet already.
	mergeMTU = 16 << 10
	// smallFrame is the size up to which a frame that nothing joined is copied
	// out of its slot, which then need not be replaced.
	smallFrame = 512
)

// mergingReceiver receives from a device without TSO: the frames of a batch are
// merged into superframes (offload.Coalescer) before they go up, because a packet
// costs the stack the same whether it holds one segment or forty.
type mergingReceiver struct {
	q     *queue
	merge *offload.Coalescer
	slots [mergeFrames]slot
	used  int  // slots that hold frames of this batch
	ack   slot // a bare acknowledgment that the next frame may outdate
	acked bool // there is one
	size  int  // of a slot's memory
	iov   [1]unix.Iovec
	parts [1][]byte
	out   offload.Merged
}

// slot is a frame of the batch; its memory lives until the batch is flushed.
type slot struct {
	view *buffer.View // virtio_net_hdr and frame; nil when given away
	at   int          // where its IP packet begins
	p    offload.Packet
	n    int // length of the packet, without padding
}

func newMergingReceiver(q *queue) *mergingReceiver {
	return &mergingReceiver{q: q, merge: offload.NewCoalescer(mergeFrames)}
}

func (r *mergingReceiver) frames() int { return mergeFrames }

func (r *mergingReceiver) release() {
	for i := range r.slots {
		r.slots[i].release()
	}
	r.ack.release()
}

func (s *slot) release() {
	if s.view != nil {
		s.view.Release()
		s.view = nil
	}
}

// receive reads the next frame into a slot, and delivers it unless the coalescer
// holds it.
func (r *mergingReceiver) receive(read readFunc) (int, error) {
	if r.used == len(r.slots) {
		r.flush()
	}
	s := &r.slots[r.used]
	r.size = max(r.size, hdrLen+r.q.ipAt+int(r.q.e.MTU()))
	if s.view != nil && s.view.Size() < r.size {
		s.release() // the MTU has grown
	}
	if s.view == nil {
		s.view = buffer.NewViewSize(r.size)
	}
	r.iov = [1]unix.Iovec{vector(s.view.BasePtr(), s.view.Size())}
	n, err := read(r.iov[:])
	if err != nil {
		return 0, err
	}
	r.handle(s, n-hdrLen)
	return n, nil
}

// handle takes the frame of n bytes in s through the steps of the package comment.
func (r *mergingReceiver) handle(s *slot, n int) {
	hdr := s.view.AsSlice()[:hdrLen]
	frame := s.view.AsSlice()[hdrLen:][:max(0, n)]
	var h offload.Hdr
	if !r.q.inspect(&h, &s.p, hdr, frame[:min(len(frame), headMax)], n) {
		return
	}
	s.at = hdrLen + r.q.ipAt
	s.n = min(n-r.q.ipAt, s.p.Len)
	frame = s.packet()
	r.parts[0] = frame
	if !r.q.verify(&h, &s.p, r.parts[:]) {
		return
	}
	r.q.counters.rx.count(s.n, false, h.Flags&offload.FlagNeedsCsum != 0)
	// Verified here or vouched for: the coalescer merges nothing else.
	if h.Flags == 0 {
		h.Flags = offload.FlagDataValid
	}
	r.outdate(&s.p, frame)
	if fate, bar := r.merge.Add(&h, &s.p, offload.Frame{Head: frame, ID: r.used}); r.settle(fate, bar, s) {
		return
	}
	// Drain: not taken. What is held goes first, in order, and the frame moves
	// to the first slot.
	r.drain()
	r.slots[0], r.slots[r.used] = r.slots[r.used], r.slots[0]
	r.used = 0
	s = &r.slots[0]
	fate, bar := r.merge.Add(&h, &s.p, offload.Frame{Head: s.packet(), ID: 0})
	r.settle(fate, bar, s)
}

// outdate ends the wait of a held acknowledgment: the next frame, which is p, tells all
// that it does, or it goes up before that.
func (r *mergingReceiver) outdate(p *offload.Packet, frame []byte) {
	switch {
	case !r.acked:
	case offload.Outdated(&r.ack.p, p, r.ack.packet(), frame):
		r.acked = false
		r.q.counters.rx.outdated.Add(1)
	default:
		r.deliverACK()
	}
}

func (r *mergingReceiver) deliverACK() {
	if r.acked {
		r.acked = false
		r.deliver(&r.ack)
	}
}

// settle does what the coalescer decided; false if it took nothing. An acknowledgment
// waits for the next frame: while the stack sends segment by segment, its client
// acknowledges every second one, and each costs as much as a superframe.
func (r *mergingReceiver) settle(fate offload.Fate, bar offload.Bar, s *slot) bool {
	switch fate {
	case offload.Pass:
		if bar == offload.BarEmpty {
			r.ack, *s, r.acked = *s, r.ack, true
			return true
		}
		r.deliver(s)
	case offload.Held, offload.Joined:
		r.used++
	case offload.Drain, offload.NumFates:
		return false
	}
	return true
}

// packet is the slot's IP packet.
func (s *slot) packet() []byte { return s.view.AsSlice()[s.at : s.at+s.n] }

// whole implements receiver.
func (r *mergingReceiver) whole(n int) []byte { return r.slots[r.used].view.AsSlice()[hdrLen:][:n] }

// take makes a buffer of the slot's packet.
func (s *slot) take() buffer.Buffer {
	if s.n <= smallFrame {
		return buffer.MakeWithView(buffer.NewViewWithData(s.packet()))
	}
	v := s.give()
	v.TrimFront(s.at)
	return buffer.MakeWithView(v)
}

// give gives the slot's memory away, cut to the packet's end.
func (s *slot) give() *buffer.View {
	v := s.view
	s.view = nil
	v.CapLength(s.at + s.n)
	return v
}

// flush delivers what is held, and begins a new batch.
func (r *mergingReceiver) flush() {
	r.deliverACK()
	r.drain()
	r.used = 0
}

func (r *mergingReceiver) drain() {
	for r.merge.Next(&r.out) {
		if len(r.out.IDs) == 1 {
			r.deliver(&r.slots[r.out.IDs[0]])
			continue
		}
		r.q.counters.rx.merged.Add(uint64(len(r.out.IDs)))
		if res, ok := r.q.judge(&r.out.Packet, r.out.Head); ok {
			r.q.hand(r.out.Packet.Version, r.superframe(), &res)
		}
	}
}

// deliver hands on a frame that nothing was merged with.
func (r *mergingReceiver) deliver(s *slot) {
	if res, ok := r.q.judge(&s.p, s.packet()); ok {
		r.q.hand(s.p.Version, s.take(), &res)
	}
}

// superframe makes a buffer of the merged packet: its header in a view of its own,
// then each frame's payload where it was read.
func (r *mergingReceiver) superframe() buffer.Buffer {
	buf := buffer.MakeWithView(buffer.NewViewWithData(r.out.Head))
	for _, id := range r.out.IDs {
		s := &r.slots[id]
		v := s.give()
		v.TrimFront(s.at + s.p.L3Len + s.p.L4Len)
		tail := buffer.MakeWithView(v)
		buf.Merge(&tail)
	}
	return buf
}
