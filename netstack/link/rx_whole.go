package link

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tungate/tungate/offload"
)

// wholeReceiver receives from a device with TSO: superframes come and go up whole.
type wholeReceiver struct {
	q     *queue
	hdr   [offload.HdrLen]byte
	head  [headMax]byte // the frame's first bytes; split of them read there
	split int           // header length of the last superframe
	body  *buffer.View  // the frame's bytes from split on
	iov   [3]unix.Iovec
	parts [2][]byte
}

func newWholeReceiver(q *queue) *wholeReceiver { return &wholeReceiver{q: q, split: headGuess} }

func (r *wholeReceiver) frames() int { return batchFrames }

func (r *wholeReceiver) flush() {}

func (r *wholeReceiver) release() {
	if r.body != nil {
		r.body.Release()
		r.body = nil
	}
}

// receive scatters the next frame over hdr, head and body, and delivers it.
func (r *wholeReceiver) receive(read readFunc) (int, error) {
	if r.body == nil {
		r.body = buffer.NewViewSize(bodySize)
	}
	r.iov = [3]unix.Iovec{
		vector(&r.hdr[0], offload.HdrLen),
		vector(&r.head[0], r.split),
		vector(r.body.BasePtr(), bodySize),
	}
	n, err := read(r.iov[:])
	if err != nil {
		return 0, err
	}
	r.handle(n - offload.HdrLen)
	return n, nil
}

// handle takes the frame of n bytes through the steps of the package comment.
func (r *wholeReceiver) handle(n int) {
	if n > r.split {
		copy(r.head[r.split:], r.body.AsSlice()[:min(n-r.split, headMax-r.split)])
	}
	var p offload.Packet
	var h offload.Hdr
	if !r.q.inspect(&h, &p, r.hdr[:], r.head[:max(0, min(n, headMax))], n) {
		return
	}
	n = min(n, p.Len) // bytes past the IP length are padding
	r.parts[0] = r.head[:min(n, r.split)]
	r.parts[1] = r.body.AsSlice()[:max(0, n-r.split)]
	if !r.q.verify(&h, &p, r.parts[:]) {
		return
	}
	r.q.rxStats.count(n, h.GSOType != offload.GSONone, h.Flags&offload.FlagNeedsCsum != 0)
	r.q.deliver(p.Version, r.build(&p, n))
}

// build makes the packet's buffer of the n bytes read.
func (r *wholeReceiver) build(p *offload.Packet, n int) buffer.Buffer {
	if n <= r.split {
		return buffer.MakeWithView(buffer.NewViewWithData(r.head[:n]))
	}
	rest := n - r.split
	if n <= copyMax {
		v := buffer.NewView(n)
		write(v, r.head[:r.split])
		write(v, r.body.AsSlice()[:rest])
		return buffer.MakeWithView(v)
	}
	// The headers of this packet end at want; bytes of them that were read
	// into body move to the header view.
	want := min(p.L3Len+p.L4Len, headMax)
	body := r.body
	r.body = nil
	body.CapLength(rest)
	end := max(want, r.split)
	if end > r.split {
		body.TrimFront(end - r.split)
	}
	buf := buffer.MakeWithView(buffer.NewViewWithData(r.head[:end]))
	// Merge, not Append, which would fill the header view's spare bytes with
	// payload.
	tail := buffer.MakeWithView(body)
	buf.Merge(&tail)
	r.split = want
	return buf
}
