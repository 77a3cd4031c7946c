package link

import (
	"context"
	"errors"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
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

// hdrLen is the length of the virtio_net_hdr before each frame.
const hdrLen = offload.HdrLen

// queue serves one queue of the device. The reading side belongs to run.
type queue struct {
	e        *Endpoint
	device   *device
	index    int
	dev      tundev.Queue
	counters *queueCounters
	backlog  backlog

	tryRead  readFunc // dev.TryReadFrame; a method value is an allocation
	receiver receiver
	ipAt     int           // where a frame's IP packet begins: behind an Ethernet header
	now      time.Time     // when the batch began; on a TAP
	clock    time.Duration // the same by the flows' clock
	press    press
	batches  uint64 // begun
	later    later
	reply    func(frame []byte) // sendFrame
	segment  offload.Segmenter  // of UDP superframes
	datagram offload.Segment
	source   loop.Source
	failed   chan error // why the queue ended; serve waits for it
}

type queueCounters struct{ rx, tx counters }

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
	// whole returns the frame of n bytes that was read last, in one piece.
	whole(n int) []byte
	// release gives its memory back.
	release()
}

func newQueue(e *Endpoint, d *device, index int, dev tundev.Queue) *queue {
	q := &queue{e: e, device: d, index: index, dev: dev, counters: &queueCounters{}}
	q.backlog.q, q.backlog.quit = q, make(chan struct{})
	q.later.init(q)
	q.reply, q.tryRead = q.sendFrame, dev.TryReadFrame
	if e.lan != nil {
		q.ipAt = lan.HdrLen
	}
	// A device that has superframes for one IP version alone is read as one
	// that has them: a frame may be one.
	if f := d.features; !f.TSO4 && !f.TSO6 && !f.USO && e.MTU() <= mergeMTU {
		q.receiver = newMergingReceiver(q)
	} else {
		q.receiver = newWholeReceiver(q)
	}
	return q
}

// run reads frames until the device or ctx ends, and returns why.
func (q *queue) run(ctx context.Context) error {
	defer q.receiver.release()
	if q.e.loop != nil && q.dev.FD() >= 0 {
		return q.serve(ctx)
	}
	if q.e.pin {
		undo := Pin(q.index)
		defer undo()
	}
	waitRead := func(iov []unix.Iovec) (int, error) {
		n, err := q.dev.ReadFrame(iov)
		q.begin() // when the frame came, not when the wait for it began
		return n, err
	}
	for {
		if _, err := q.receiver.receive(waitRead); err != nil {
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
	q.begin()
	for bytes := 0; received < q.receiver.frames() && bytes < batchBytes && err == nil; received++ {
		var n int
		n, err = q.receiver.receive(q.tryRead)
		bytes += n
	}
	q.receiver.flush()
	runtime.Gosched()
	if errors.Is(err, unix.EAGAIN) {
		q.press.left, err = false, nil
	}
	q.later.resume()
	return err
}

// begin notes when a batch begins, for those who want to know.
func (q *queue) begin() {
	if q.e.lan != nil {
		q.now = time.Now()
	}
	q.batches++
	if q.e.flows != nil {
		q.clock = q.e.Now()
		q.press.begin(q.clock)
	}
}

// vector describes n bytes from b on; Iovec's length has the word's width.
func vector(b *byte, n int) unix.Iovec {
	v := unix.Iovec{Base: b}
	v.SetLen(n)
	return v
}

// inspect takes a frame of n bytes, of which head are the first, through parsing,
// the check of its virtio_net_hdr and the guard; false if it went no further.
func (q *queue) inspect(h *offload.Hdr, p *offload.Packet, hdr, head []byte, n int) bool {
	if n <= q.ipAt {
		q.e.drop(DropTruncated)
		return false
	}
	h.Decode(hdr)
	if t := q.e.lan; t != nil {
		if !toIP(h) {
			q.e.drop(DropBadHdr)
			return false
		}
		vouched := h.Flags&(offload.FlagNeedsCsum|offload.FlagDataValid) != 0
		if !t.input(q, vouched, head, n) {
			return false
		}
	}
	ip := head[q.ipAt:]
	if v := offload.Parse(p, ip, n-q.ipAt); v != offload.OK {
		q.e.drop(dropOf(v))
		return false
	}
	if v := h.Check(p); v != offload.OK {
		q.e.drop(dropOf(v))
		return false
	}
	if reason, bad := q.e.guard.check(p); bad {
		q.e.drop(reason)
		return false
	}
	if q.e.oversize(h, p, ip) {
		q.refuseTooBig(p, ip)
		return false
	}
	if q.e.flows == nil || p.Proto != offload.ProtoTCP { // whose record knows
		q.device.steer.note(p, q.index)
	}
	return true
}

// verify applies the checksum policy to a frame whose bytes, without padding, are
// parts; false if it was dropped.
func (q *queue) verify(h *offload.Hdr, p *offload.Packet, parts [][]byte) bool {
	if h.Flags&(offload.FlagNeedsCsum|offload.FlagDataValid) != 0 {
		return true
	}
	q.counters.rx.verified.Add(1)
	if offload.VerifyTransport(p, parts) {
		return true
	}
	q.e.drop(DropChecksum)
	return false
}

// split delivers a UDP superframe, whose bytes without padding are parts, as the
// datagrams it is made of: the stack has no superframes of UDP.
func (q *queue) split(h *offload.Hdr, p *offload.Packet, parts [][]byte) {
	q.counters.rx.split.Add(1)
	if v := q.segment.Reset(h, p, parts[0], parts[1:]); v != offload.OK {
		q.e.drop(dropOf(v))
		return
	}
	for q.segment.Next(&q.datagram) {
		v := buffer.NewView(q.datagram.Len)
		write(v, q.datagram.Head)
		for _, b := range q.datagram.Payload {
			write(v, b)
		}
		q.deliver(p.Version, buffer.MakeWithView(v))
	}
}

// deliver hands a packet to the stack.
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
