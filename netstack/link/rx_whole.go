package link

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tungate/tungate/offload"
)

const (
	// frameMax is the longest frame: an IP packet, an Ethernet header and a VLAN
	// tag.
	frameMax = 65535 + 18
	// smallRun is after how many small frames in a row the next are read in one
	// piece. A superframe among those is copied, which costs what so many frames
	// have saved.
	smallRun = 64
)

// wholeReceiver receives from a device with TSO: superframes come and go up whole.
//
// Frames are read in two pieces, so that a superframe's payload stays where it was
// read; while nothing but small frames comes, which are copied anyway, in one, which
// costs the kernel less.
type wholeReceiver struct {
	q     *queue
	mem   [hdrLen + frameMax]byte // the virtio_net_hdr and the first split bytes of the frame
	split int
	body  *buffer.View // the frame's bytes from split on; nil while there are none
	small int          // small frames in a row, up to smallRun
	guess int          // length of all headers of the last superframe
	iov   [2]unix.Iovec
	parts [2][]byte
	// Of the frame being handled; as variables they would be allocations.
	packet offload.Packet
	header offload.Hdr
}

func newWholeReceiver(q *queue) *wholeReceiver {
	return &wholeReceiver{q: q, guess: q.ipAt + headGuess}
}

func (r *wholeReceiver) frames() int { return batchFrames }

func (r *wholeReceiver) flush() {}

func (r *wholeReceiver) release() {
	if r.body != nil {
		r.body.Release()
		r.body = nil
	}
}

// receive reads the next frame and delivers it.
func (r *wholeReceiver) receive(read readFunc) (int, error) {
	n, err := read(r.vectors())
	if err != nil {
		return 0, err
	}
	if n-hdrLen <= copyMax {
		r.small = min(r.small+1, smallRun)
	} else {
		r.small = 0
	}
	r.handle(n - hdrLen)
	return n, nil
}

// vectors are where the next frame is read to.
func (r *wholeReceiver) vectors() []unix.Iovec {
	if r.small == smallRun {
		r.split = frameMax
		r.iov[0] = vector(&r.mem[0], len(r.mem))
		return r.iov[:1]
	}
	if r.body == nil {
		r.body = buffer.NewViewSize(bodySize)
	}
	r.split = r.guess
	r.iov = [2]unix.Iovec{vector(&r.mem[0], hdrLen+r.split), vector(r.body.BasePtr(), bodySize)}
	return r.iov[:]
}

// handle takes the frame of n bytes through the steps of the package comment.
func (r *wholeReceiver) handle(n int) {
	head := r.mem[hdrLen:]
	if n > r.split {
		copy(head[r.split:], r.body.AsSlice()[:min(n-r.split, headMax-r.split)])
	}
	h, p := &r.header, &r.packet
	if !r.q.inspect(h, p, r.mem[:hdrLen], head[:max(0, min(n, headMax))], n) {
		return
	}
	at := r.q.ipAt
	n = min(n, at+p.Len) // bytes past the IP length are padding
	r.parts[0] = head[at:min(n, r.split)]
	r.parts[1] = r.body.AsSlice()[:max(0, n-r.split)]
	if !r.q.verify(h, p, r.parts[:]) {
		return
	}
	r.q.counters.rx.count(n-at, h.GSOType != offload.GSONone, h.Flags&offload.FlagNeedsCsum != 0)
	if h.GSOType == offload.GSOUDPL4 {
		r.q.split(h, p, r.pieces(p, n))
		return
	}
	if res, ok := r.q.judge(p, head[at:min(n, headMax)]); ok {
		r.q.hand(p.Version, r.build(p, n), &res)
	}
}

// pieces are the packet's bytes with all headers in the first.
func (r *wholeReceiver) pieces(p *offload.Packet, n int) [][]byte {
	at, split, head := r.q.ipAt, r.split, r.mem[hdrLen:]
	if want := at + p.L3Len + p.L4Len; want > split {
		split = min(want, headMax, n)
	}
	r.parts[0] = head[at:min(n, split)]
	r.parts[1] = r.body.AsSlice()[max(0, split-r.split):max(0, n-r.split)]
	return r.parts[:]
}

// whole implements receiver.
func (r *wholeReceiver) whole(n int) []byte {
	b := append([]byte(nil), r.mem[hdrLen:][:min(n, r.split)]...)
	return append(b, r.body.AsSlice()[:max(0, n-r.split)]...)
}

// build makes the packet's buffer of the frame of n bytes.
func (r *wholeReceiver) build(p *offload.Packet, n int) buffer.Buffer {
	at, head := r.q.ipAt, r.mem[hdrLen:]
	want := min(at+p.L3Len+p.L4Len, headMax, n) // where the headers of this packet end
	if n > copyMax {
		r.guess = want
	}
	if n <= r.split {
		return buffer.MakeWithView(buffer.NewViewWithData(head[at:n]))
	}
	rest := n - r.split
	// Headers that were read into body are taken from head, where they may have
	// been changed.
	end := max(want, r.split)
	if n <= copyMax {
		v := buffer.NewView(n - at)
		write(v, head[at:end])
		write(v, r.body.AsSlice()[end-r.split:rest])
		return buffer.MakeWithView(v)
	}
	body := r.body
	r.body = nil
	body.CapLength(rest)
	if end > r.split {
		body.TrimFront(end - r.split)
	}
	buf := buffer.MakeWithView(buffer.NewViewWithData(head[at:end]))
	// Merge, not Append, which would fill the header view's spare bytes with
	// payload.
	tail := buffer.MakeWithView(body)
	buf.Merge(&tail)
	return buf
}
