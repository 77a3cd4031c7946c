package link

import (
	"context"
	"errors"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

const (
	// headMax is how much of a frame offload.Parse may look at: IPv6 and TCP
	// with all options are 100 bytes, and a few extension headers fit too.
	headMax = 128
	// headGuess is the first guess of a superframe's header length: IPv4 and
	// TCP with timestamps. The last superframe's is the next guess.
	headGuess = 52
	// bodySize holds the largest frame; the stack's chunks come in powers of
	// two, so this is one chunk exactly.
	bodySize = 65536
	// copyMax is the frame size up to which a copy is made, so that no frame
	// pins more than four times its size: the stack's accounting counts bytes,
	// not the chunk that holds them.
	copyMax = 16384
	// batchFrames and batchBytes bound what is read before connections are
	// served: enough frames to spread a turn's cost, few enough bytes that
	// what is read is still in the cache when it is written on.
	batchFrames = 32
	batchBytes  = 256 << 10
)

// queue serves one queue of the device. The reading side belongs to run.
type queue struct {
	e       *Endpoint
	dev     tundev.Queue
	rxStats counters
	txStats counters

	hdr   [offload.HdrLen]byte
	head  [headMax]byte // the frame's first bytes; split of them read there
	split int           // header length of the last superframe
	body  *buffer.View  // the frame's bytes from split on
	iov   [3]unix.Iovec
	parts [2][]byte

	source loop.Source
	failed chan error // why the queue ended; serve waits for it
}

func newQueue(e *Endpoint, dev tundev.Queue) *queue {
	return &queue{e: e, dev: dev, split: headGuess}
}

// run reads frames until the device or ctx ends, and returns why.
func (q *queue) run(ctx context.Context) error {
	defer func() {
		if q.body != nil {
			q.body.Release()
			q.body = nil
		}
	}()
	if q.e.loop != nil && q.dev.FD() >= 0 {
		return q.serve(ctx)
	}
	for i := 1; ; i++ {
		n, err := q.read(q.dev.ReadFrame)
		if err != nil {
			return err
		}
		q.receive(n)
		if i%batchFrames == 0 {
			runtime.Gosched()
		}
	}
}

// serve makes the queue a source of the loop until ctx or the device ends.
func (q *queue) serve(ctx context.Context) error {
	q.failed = make(chan error, 1)
	q.source.Init(q)
	if err := q.onLoop(func() error { return q.e.loop.Add(&q.source, q.dev.FD(), unix.EPOLLIN) }); err != nil {
		return err
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-q.failed:
	}
	return errors.Join(err, q.onLoop(func() error { q.e.loop.Remove(&q.source); return nil }))
}

// onLoop runs f on the loop's goroutine and waits for it.
func (q *queue) onLoop(f func() error) error {
	done := make(chan error, 1)
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { done <- f() }))
	if !q.e.loop.Post(&task) {
		return net.ErrClosed
	}
	return <-done
}

// HandleEvents implements loop.Handler: it delivers a batch of frames, and then
// lets the stack's processors, which that made runnable on this very P, run.
func (q *queue) HandleEvents(uint32) {
	bytes := 0
	for range batchFrames {
		n, err := q.read(q.dev.TryReadFrame)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				q.e.loop.Remove(&q.source)
				q.failed <- err
			}
			break
		}
		q.receive(n)
		if bytes += n; bytes >= batchBytes {
			break
		}
	}
	runtime.Gosched()
}

// read scatters the next frame over hdr, head and body, and returns its length
// without the virtio_net_hdr, negative if it is shorter than that.
func (q *queue) read(readFrame func([]unix.Iovec) (int, error)) (int, error) {
	if q.body == nil {
		q.body = buffer.NewViewSize(bodySize)
	}
	q.iov = [3]unix.Iovec{
		vector(&q.hdr[0], offload.HdrLen),
		vector(&q.head[0], q.split),
		vector(q.body.BasePtr(), bodySize),
	}
	n, err := readFrame(q.iov[:])
	return n - offload.HdrLen, err
}

// vector describes n bytes from b on; Iovec's length has the word's width.
func vector(b *byte, n int) unix.Iovec {
	v := unix.Iovec{Base: b}
	v.SetLen(n)
	return v
}

// receive takes the frame of n bytes through the steps of the package comment.
func (q *queue) receive(n int) {
	if n <= 0 {
		q.e.drop(DropTruncated)
		return
	}
	body := q.body.AsSlice()
	if n > q.split {
		copy(q.head[q.split:], body[:min(n-q.split, headMax-q.split)])
	}
	var p offload.Packet
	if v := offload.Parse(&p, q.head[:min(n, headMax)], n); v != offload.OK {
		q.e.drop(dropOf(v))
		return
	}
	var h offload.Hdr
	h.Decode(q.hdr[:])
	if v := h.Check(&p); v != offload.OK {
		q.e.drop(dropOf(v))
		return
	}
	if reason, bad := q.e.guard.check(&p); bad {
		q.e.drop(reason)
		return
	}
	n = min(n, p.Len) // bytes past the IP length are padding
	if !q.verify(&h, &p, n) {
		q.e.drop(DropChecksum)
		return
	}
	super := h.GSOType != offload.GSONone
	q.rxStats.count(n, super, h.Flags&offload.FlagNeedsCsum != 0)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: q.build(&p, n)})
	q.e.deliver(networkProtocol(p.Version), pkt)
}

// verify applies the checksum policy.
func (q *queue) verify(h *offload.Hdr, p *offload.Packet, n int) bool {
	if h.Flags&(offload.FlagNeedsCsum|offload.FlagDataValid) != 0 {
		return true
	}
	q.rxStats.verified.Add(1)
	q.parts[0] = q.head[:min(n, q.split)]
	q.parts[1] = q.body.AsSlice()[:max(0, n-q.split)]
	return offload.VerifyTransport(p, q.parts[:])
}

// build makes the packet's buffer of the n bytes read.
func (q *queue) build(p *offload.Packet, n int) buffer.Buffer {
	if n <= q.split {
		return buffer.MakeWithView(buffer.NewViewWithData(q.head[:n]))
	}
	rest := n - q.split
	if n <= copyMax {
		v := buffer.NewView(n)
		write(v, q.head[:q.split])
		write(v, q.body.AsSlice()[:rest])
		return buffer.MakeWithView(v)
	}
	// The headers of this packet end at want; bytes of them that were read
	// into body move to the header view.
	want := min(p.L3Len+p.L4Len, headMax)
	body := q.body
	q.body = nil
	body.CapLength(rest)
	end := max(want, q.split)
	if end > q.split {
		body.TrimFront(end - q.split)
	}
	buf := buffer.MakeWithView(buffer.NewViewWithData(q.head[:end]))
	// Merge, not Append, which would fill the header view's spare bytes with
	// payload.
	tail := buffer.MakeWithView(body)
	buf.Merge(&tail)
	q.split = want
	return buf
}

// write appends to a view that has room, which cannot fail.
func write(v *buffer.View, b []byte) {
	if n, err := v.Write(b); err != nil || n != len(b) {
		panic("link: view too small for the frame it was made for")
	}
}

func networkProtocol(version uint8) tcpip.NetworkProtocolNumber {
	if version == 6 {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

// dropOf names the drop for a verdict on a frame.
func dropOf(v offload.Verdict) DropReason {
	switch v {
	case offload.BadVersion:
		return DropBadVersion
	case offload.BadIP:
		return DropBadIP
	case offload.BadHdr:
		return DropBadHdr
	case offload.BadTransport:
		return DropTransport
	case offload.BadGSO:
		return DropGSO
	case offload.OK, offload.Truncated, offload.NumVerdicts:
	}
	return DropTruncated
}
