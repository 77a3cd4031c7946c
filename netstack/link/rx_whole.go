package link

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tungate/tungate/offload"
)

// wholeReceiver receives from a device with TSO: superframes come and go up whole.
type wholeReceiver struct {
	q     *queue
	hdr   [hdrLen]byte
	head  [headMax]byte // the frame's first bytes; split of them read there
	split int           // length of all headers of the last superframe
	body  *buffer.View  // the frame's bytes from split on
	iov   [3]unix.Iovec
	parts [2][]byte
	// Of the frame being handled; as variables they would be allocations.
	packet offload.Packet
	header offload.Hdr
}

func newWholeReceiver(q *queue) *wholeReceiver {
	return &wholeReceiver{q: q, split: q.ipAt + headGuess}
}

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
		vector(&r.hdr[0], hdrLen),
		vector(&r.head[0], r.split),
		vector(r.body.BasePtr(), bodySize),
	}
	n, err := read(r.iov[:])
	if err != nil {
		return 0, err
	}
	r.handle(n - hdrLen)
	return n, nil
}

// handle takes the frame of n bytes through the steps of the package comment.
func (r *wholeReceiver) handle(n int) {
	if n > r.split {
		copy(r.head[r.split:], r.body.AsSlice()[:min(n-r.split, headMax-r.split)])
	}
	h, p := &r.header, &r.packet
	if !r.q.inspect(h, p, r.hdr[:], r.head[:max(0, min(n, headMax))], n) {
		return
	}
	at := r.q.ipAt
	n = min(n, at+p.Len) // bytes past the IP length are padding
	r.parts[0] = r.head[at:min(n, r.split)]
	r.parts[1] = r.body.AsSlice()[:max(0, n-r.split)]
	if !r.q.verify(h, p, r.parts[:]) {
		return
	}
	r.q.counters.rx.count(n-at, h.GSOType != offload.GSONone, h.Flags&offload.FlagNeedsCsum != 0)
	if h.GSOType == offload.GSOUDPL4 {
		r.q.split(h, p, r.pieces(p, n))
		return
	}
	if res, ok := r.q.judge(p, r.head[at:min(n, headMax)]); ok {
		r.q.hand(p.Version, r.build(p, n), &res)
	}
}

// pieces are the packet's bytes with all headers in the first.
func (r *wholeReceiver) pieces(p *offload.Packet, n int) [][]byte {
	at, split := r.q.ipAt, r.split
	if want := at + p.L3Len + p.L4Len; want > split {
		split = min(want, headMax, n)
	}
	r.parts[0] = r.head[at:min(n, split)]
	r.parts[1] = r.body.AsSlice()[max(0, split-r.split):max(0, n-r.split)]
	return r.parts[:]
}

// whole implements receiver.
func (r *wholeReceiver) whole(n int) []byte {
	b := append([]byte(nil), r.head[:min(n, r.split)]...)
	return append(b, r.body.AsSlice()[:max(0, n-r.split)]...)
}

// build makes the packet's buffer of the frame of n bytes.
func (r *wholeReceiver) build(p *offload.Packet, n int) buffer.Buffer {
	at := r.q.ipAt
	if n <= r.split {
		return buffer.MakeWithView(buffer.NewViewWithData(r.head[at:n]))
	}
	rest := n - r.split
	// The headers of this packet end at want. Bytes of them that were read into
	// body are taken from head, where they may have been changed.
	want := min(at+p.L3Len+p.L4Len, headMax, n)
	end := max(want, r.split)
	if n <= copyMax {
		v := buffer.NewView(n - at)
		write(v, r.head[at:end])
		write(v, r.body.AsSlice()[end-r.split:rest])
		return buffer.MakeWithView(v)
	}
	body := r.body
	r.body = nil
	body.CapLength(rest)
	if end > r.split {
		body.TrimFront(end - r.split)
	}
	buf := buffer.MakeWithView(buffer.NewViewWithData(r.head[at:end]))
	// Merge, not Append, which would fill the header view's spare bytes with
	// payload.
	tail := buffer.MakeWithView(body)
	buf.Merge(&tail)
	r.split = want
	return buf
}
