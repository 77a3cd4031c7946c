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

	rx     receiver
	source loop.Source
	failed chan error // why the queue ended; serve waits for it
}

// readFunc is TryReadFrame or ReadFrame of a tundev.Queue.
type readFunc func([]unix.Iovec) (int, error)

// receiver turns the frames of a queue into packets for the stack.
type receiver interface {
	// receive reads one frame, delivers it or holds it back, and returns its
	// length in bytes.
	receive(read readFunc) (int, error)
	// flush delivers what was held back, at the end of a batch.
	flush()
	// frames bounds a batch.
	frames() int
	// release gives its memory back.
	release()
}

func newQueue(e *Endpoint, dev tundev.Queue) *queue {
	q := &queue{e: e, dev: dev}
	if e.merges() {
		q.rx = newMergingReceiver(q)
	} else {
		q.rx = newWholeReceiver(q)
	}
	return q
}

// run reads frames until the device or ctx ends, and returns why.
func (q *queue) run(ctx context.Context) error {
	defer q.rx.release()
	if q.e.loop != nil && q.dev.FD() >= 0 {
		return q.serve(ctx)
	}
	for {
		if _, err := q.rx.receive(q.dev.ReadFrame); err != nil {
			return err
		}
		if err := q.batch(1); err != nil {
			return err
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

// HandleEvents implements loop.Handler.
func (q *queue) HandleEvents(uint32) {
	if err := q.batch(0); err != nil {
		q.e.loop.Remove(&q.source)
		q.failed <- err
	}
}

// batch receives what waits, up to the bounds of a batch of which some frames were
// received already, and then lets the stack's processors, which that made runnable
// on this very P, run. The error is the device's end.
func (q *queue) batch(received int) error {
	var err error
	for bytes := 0; received < q.rx.frames() && bytes < batchBytes && err == nil; received++ {
		var n int
		n, err = q.rx.receive(q.dev.TryReadFrame)
		bytes += n
	}
	q.rx.flush()
	runtime.Gosched()
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

// vector describes n bytes from b on; Iovec's length has the word's width.
func vector(b *byte, n int) unix.Iovec {
	v := unix.Iovec{Base: b}
	v.SetLen(n)
	return v
}

// inspect takes a frame of n bytes, of which head are the first, through parsing,
// the check of its virtio_net_hdr and the guard; false if it was dropped.
func (q *queue) inspect(h *offload.Hdr, p *offload.Packet, hdr, head []byte, n int) bool {
	if n <= 0 {
		q.e.drop(DropTruncated)
		return false
	}
	if v := offload.Parse(p, head, n); v != offload.OK {
		q.e.drop(dropOf(v))
		return false
	}
	h.Decode(hdr)
	if v := h.Check(p); v != offload.OK {
		q.e.drop(dropOf(v))
		return false
	}
	if reason, bad := q.e.guard.check(p); bad {
		q.e.drop(reason)
		return false
	}
	return true
}

// verify applies the checksum policy to a frame whose bytes, without padding, are
// parts; false if it was dropped.
func (q *queue) verify(h *offload.Hdr, p *offload.Packet, parts [][]byte) bool {
	if h.Flags&(offload.FlagNeedsCsum|offload.FlagDataValid) != 0 {
		return true
	}
	q.rxStats.verified.Add(1)
	if offload.VerifyTransport(p, parts) {
		return true
	}
	q.e.drop(DropChecksum)
	return false
}

// deliver counts a frame, or what was made of several, and hands it to the stack.
func (q *queue) deliver(version uint8, b buffer.Buffer) {
	q.e.deliver(networkProtocol(version), stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b}))
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
