package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// The loads on the bare device.
const (
	loadFrames      = "frames"      // of 1500 bytes
	loadSuperframes = "superframes" // of up to 64 KiB
)

// warm is how long a load runs before it is measured.
const warm = 300 * time.Millisecond

// loadTimeout bounds the wait for a load to begin.
const loadTimeout = 5 * time.Second

// tally is what a reader has read so far.
type tally struct{ frames, bytes atomic.Uint64 }

// openTUN makes the device of a role in the namespace the role runs in.
func openTUN(o tundev.Options) (*tundev.Device, error) {
	const prefix = 15 // as in examples/direct.yaml
	o.Name, o.MTU = testutil.TunName, tundev.DefaultMTU
	o.Addresses = []netip.Prefix{netip.PrefixFrom(testutil.TunV4, prefix)}
	return tundev.Create(o)
}

// slice is how long a reader reads before it is the other's turn: long enough to
// count thousands of frames, short enough that both meet the same minute of the
// machine's day.
const (
	slice  = 100 * time.Millisecond
	settle = 20 * time.Millisecond // of each turn, before it counts
)

// reader takes frames off a device while it is its turn.
type reader interface {
	begin() error // its turn
	end() error   // returns when it has stopped reading
	read() *tally
}

// drainResult is what readers read in each of their turns.
type drainResult map[string][]drainTurn

// drainTurn is what a reader read in a turn.
type drainTurn struct {
	Rate  float64 // frames per second
	Bits  float64 // per second
	CPUns float64 // processor time of the process, per frame
}

// drain reads and discards what the device delivers, both readers by turns, for
// span. It says "ready" when the load may begin.
func drain(load string, span time.Duration) (drainResult, error) {
	o := tundev.Options{Queues: 1}
	if load == loadFrames {
		o.Offload.USO = tundev.Off
	}
	d, err := openTUN(o)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if load == loadSuperframes && !d.Features().USO {
		return nil, errors.New("the kernel has no superframes of UDP (USO, Linux 6.2)")
	}
	q := d.Queues()[0]
	onLoop, err := newLoopReader(q)
	if err != nil {
		return nil, err
	}
	readers := []namedReader{{tundevLoop, onLoop}, {rawRead, newRawReader(q.FD())}}
	fmt.Println("ready")
	res := drainResult{}
	var missed error
	for i, start := 0, time.Now(); time.Since(start) < span; i++ {
		pair := map[string]drainTurn{}
		err := alternately(i, readers, func(r namedReader) error {
			t, err := takeTurn(r.reader)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			pair[r.name] = t
			return nil
		})
		if err != nil {
			// The sender was off its processor for all of a turn; the pair
			// says nothing.
			missed = err
			continue
		}
		if i == 0 {
			continue // to get warm
		}
		for name, t := range pair {
			res[name] = append(res[name], t)
		}
	}
	if len(res) == 0 {
		return nil, errors.Join(errors.New("no pair of turns was measured"), missed)
	}
	return res, nil
}

// namedReader is a reader with the name of the subject it is.
type namedReader struct {
	name string
	reader
}

// takeTurn lets a reader read for a slice.
func takeTurn(r reader) (t drainTurn, err error) {
	if err := r.begin(); err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	c := r.read()
	idle := c.frames.Load()
	err = testutil.Poll(loadTimeout, func() error {
		if c.frames.Load() == idle {
			return errors.New("no frame came")
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	time.Sleep(settle)
	start, frames, bytes, cpu := time.Now(), c.frames.Load(), c.bytes.Load(), cpuTime()
	time.Sleep(slice)
	took := time.Since(start).Seconds()
	n := float64(c.frames.Load() - frames)
	if n == 0 {
		return t, errors.New("no frame came any more")
	}
	t.Rate = n / took
	t.Bits = float64(c.bytes.Load()-bytes) * 8 / took
	t.CPUns = float64(cpuTime()-cpu) / n
	return t, nil
}

// cpuTime is the processor time of this process, user and system.
func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // fails for bad arguments only
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// The bounds of a batch, link's batchFrames and batchBytes.
const (
	batchFrames = 32
	batchBytes  = 256 << 10
)

// loopReader reads as package link does, less the stack: in one piece where small
// frames come, in two where superframes do, batches of as much, the loop's own sleep.
type loopReader struct {
	tally
	q      tundev.Queue
	loop   *loop.Loop
	source loop.Source
	front  [offload.HdrLen + 65535]byte
	body   [64 << 10]byte
	iov    [2]unix.Iovec
	small  int // small frames in a row, up to smallRun
}

// How package link reads.
const (
	headGuess = 52
	copyMax   = 16 << 10
	smallRun  = 64
)

func newLoopReader(q tundev.Queue) (*loopReader, error) {
	l, err := loop.New()
	if err != nil {
		return nil, err
	}
	r := &loopReader{q: q, loop: l}
	r.source.Init(r)
	go func() { _ = l.Run(neverDone()) }()
	return r, nil
}

// readFrame reads a frame and returns its length with the header.
func (r *loopReader) readFrame() (int, error) {
	r.iov = [2]unix.Iovec{{Base: &r.front[0]}, {Base: &r.body[0]}}
	r.iov[0].SetLen(offload.HdrLen + headGuess)
	r.iov[1].SetLen(len(r.body))
	pieces := r.iov[:]
	if r.small == smallRun {
		r.iov[0].SetLen(len(r.front))
		pieces = r.iov[:1]
	}
	n, err := r.q.TryReadFrame(pieces)
	switch {
	case err != nil:
	case n > copyMax:
		r.small = 0
	case r.small < smallRun:
		r.small++
	}
	return n, err
}

func (r *loopReader) read() *tally { return &r.tally }

func (r *loopReader) begin() error {
	return r.onLoop(func() error { return r.loop.Add(&r.source, r.q.FD(), unix.EPOLLIN) })
}

func (r *loopReader) end() error {
	return r.onLoop(func() error { r.loop.Remove(&r.source); return nil })
}

// onLoop runs f on the loop's goroutine.
func (r *loopReader) onLoop(f func() error) error {
	done := make(chan error, 1)
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { done <- f() }))
	r.loop.Post(&task)
	return <-done
}

// HandleEvents implements loop.Handler.
func (r *loopReader) HandleEvents(uint32) {
	frames, bytes := 0, 0
	for frames < batchFrames && bytes < batchBytes {
		n, err := r.readFrame()
		if err != nil {
			break // EAGAIN, or the process is about to end
		}
		frames++
		bytes += n - offload.HdrLen
	}
	r.frames.Add(uint64(frames))
	r.bytes.Add(uint64(bytes))
}

// rawReader is the least a program can do, in C or here: one thread, one blocking
// read(2) a frame into one buffer.
type rawReader struct {
	tally
	fd    int
	turns chan struct{} // filled to begin
	over  atomic.Bool   // set to end
	ended chan struct{}
}

func newRawReader(fd int) *rawReader {
	r := &rawReader{fd: fd, turns: make(chan struct{}), ended: make(chan struct{})}
	go r.run()
	return r
}

func (r *rawReader) read() *tally { return &r.tally }

func (r *rawReader) begin() error {
	r.over.Store(false)
	if err := unix.SetNonblock(r.fd, false); err != nil {
		return err
	}
	r.turns <- struct{}{}
	return nil
}

// end waits for the frame that ends the reader's last read.
func (r *rawReader) end() error {
	r.over.Store(true)
	<-r.ended
	return unix.SetNonblock(r.fd, true)
}

func (r *rawReader) run() {
	runtime.LockOSThread()
	buf := make([]byte, offload.HdrLen+64<<10)
	for range r.turns {
		r.drain(buf)
		r.ended <- struct{}{}
	}
}

func (r *rawReader) drain(buf []byte) {
	for !r.over.Load() {
		frames, bytes := 0, 0
		for frames < batchFrames && bytes < batchBytes {
			n, err := read(r.fd, buf)
			if err != nil {
				break
			}
			frames++
			bytes += n - offload.HdrLen
		}
		r.frames.Add(uint64(frames))
		r.bytes.Add(uint64(bytes))
	}
}
