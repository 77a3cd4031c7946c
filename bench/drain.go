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

// The two readers of the bare device.
const (
	onLoop = "loop" // tundev's queue on the gateway's event loop
	rawly  = "raw"  // read(2) on a thread of its own, and nothing else
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

// drain reads and discards what the device delivers, and measures for span. It says
// "ready" when the load may begin.
func drain(reader, load string, span time.Duration) (roleResult, error) {
	o := tundev.Options{Queues: 1}
	if load == loadFrames {
		o.Offload.USO = tundev.Off
	}
	d, err := openTUN(o)
	if err != nil {
		return roleResult{}, err
	}
	defer d.Close()
	if load == loadSuperframes && !d.Features().USO {
		return roleResult{}, errors.New("the kernel has no superframes of UDP (USO, Linux 6.2)")
	}
	var c tally
	switch q := d.Queues()[0]; reader {
	case onLoop:
		err = drainOnLoop(q, &c)
	case rawly:
		err = drainRawly(q.FD(), &c)
	default:
		err = fmt.Errorf("no reader %q", reader)
	}
	if err != nil {
		return roleResult{}, err
	}
	fmt.Println("ready")
	return c.measure(span)
}

// measure waits for the load and measures it. The reader goes on until the process
// ends.
func (c *tally) measure(span time.Duration) (res roleResult, err error) {
	err = testutil.Poll(loadTimeout, func() error {
		if c.frames.Load() == 0 {
			return errors.New("no frame came")
		}
		return nil
	})
	if err != nil {
		return res, err
	}
	time.Sleep(warm)
	start, frames, bytes, cpu := time.Now(), c.frames.Load(), c.bytes.Load(), cpuTime()
	time.Sleep(span)
	took := time.Since(start).Seconds()
	n := float64(c.frames.Load() - frames)
	if n == 0 {
		return res, errors.New("no frame came any more")
	}
	res.Rate = n / took
	res.Bits = float64(c.bytes.Load()-bytes) * 8 / took
	res.CPUns = float64(cpuTime()-cpu) / n
	return res, nil
}

// cpuTime is the processor time of this process, user and system.
func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // fails for bad arguments only
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// loopReader reads as package link does, less the stack: three vectors, batches of
// as much, the loop's own sleep.
type loopReader struct {
	q      tundev.Queue
	c      *tally
	source loop.Source
	hdr    [offload.HdrLen]byte
	head   [52]byte
	body   [64 << 10]byte
	iov    [3]unix.Iovec
}

// The bounds of a batch, link's batchFrames and batchBytes.
const (
	batchFrames = 32
	batchBytes  = 256 << 10
)

func drainOnLoop(q tundev.Queue, c *tally) error {
	l, err := loop.New()
	if err != nil {
		return err
	}
	r := &loopReader{q: q, c: c}
	for i, b := range [][]byte{r.hdr[:], r.head[:], r.body[:]} {
		r.iov[i].Base = &b[0]
		r.iov[i].SetLen(len(b))
	}
	r.source.Init(r)
	if err := l.Add(&r.source, q.FD(), unix.EPOLLIN); err != nil {
		return err
	}
	go func() { _ = l.Run(neverDone()) }()
	return nil
}

// HandleEvents implements loop.Handler.
func (r *loopReader) HandleEvents(uint32) {
	frames, bytes := 0, 0
	for frames < batchFrames && bytes < batchBytes {
		n, err := r.q.TryReadFrame(r.iov[:])
		if err != nil {
			break // EAGAIN, or the process is about to end
		}
		frames++
		bytes += n - offload.HdrLen
	}
	r.c.frames.Add(uint64(frames))
	r.c.bytes.Add(uint64(bytes))
}

// drainRawly is the least a program can do, in C or here: one thread, one blocking
// read(2) a frame into one buffer.
func drainRawly(fd int, c *tally) error {
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, offload.HdrLen+64<<10)
		frames, bytes := 0, 0
		for {
			n, err := read(fd, buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			frames++
			bytes += n - offload.HdrLen
			if frames%batchFrames == 0 || n > batchBytes/batchFrames {
				c.frames.Store(uint64(frames))
				c.bytes.Store(uint64(bytes))
			}
		}
	}()
	return nil
}
