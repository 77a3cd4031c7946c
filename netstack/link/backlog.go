package link

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// backlogFrames and backlogBytes bound what waits for a device that takes
	// no more. A flow's window bounds what it adds; past the bound it is a
	// loss, as on a wire.
	backlogFrames = 256
	backlogBytes  = 4 << 20
	// backlogPoll is how often a device is tried that has no descriptor to
	// wait for, and the least time between two tries of one that has.
	backlogPoll = time.Millisecond
	// backlogWait bounds one wait for a descriptor, which somebody may close
	// meanwhile.
	backlogWait = 100 * time.Millisecond
)

// backlog holds frames that the device did not take (EAGAIN, ENOBUFS), in order,
// until it does. There is a goroutine as long as any waits.
type backlog struct {
	q    *queue
	busy atomic.Bool // frames wait, so that others have to wait behind them

	mu      sync.Mutex
	frames  [][]byte
	bytes   int
	stopped bool
	drains  sync.WaitGroup
	quit    chan struct{} // closed by stop
}

// full reports whether err says that the device takes no more now.
func full(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) }

// write writes a frame, or lets it wait. The error is the device's; that of a full
// device says that there is no room to wait, either.
func (b *backlog) write(iov []unix.Iovec) error {
	if !b.busy.Load() {
		if err := b.q.dev.WriteFrame(iov); !full(err) {
			return err
		}
	}
	return b.add(iov)
}

// add lets a copy of a frame wait.
func (b *backlog) add(iov []unix.Iovec) error {
	n := 0
	for _, v := range iov {
		n += int(v.Len) //nolint:gosec // of a frame
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || len(b.frames) >= backlogFrames || b.bytes+n > backlogBytes {
		return unix.EAGAIN
	}
	f := make([]byte, 0, n)
	for _, v := range iov {
		f = append(f, unsafe.Slice(v.Base, v.Len)...) //nolint:gosec // what the vector says of its own memory
	}
	b.frames = append(b.frames, f)
	b.bytes += n
	b.q.counters.tx.waited.Add(1)
	if !b.busy.Swap(true) {
		b.drains.Go(b.drain)
	}
	return nil
}

// drain writes what waits, and ends when nothing does.
func (b *backlog) drain() {
	for b.step() {
		b.wait()
	}
}

// step writes what the device takes and reports whether more waits.
func (b *backlog) step() (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.frames) > 0 && !b.stopped {
		f := b.frames[0]
		err := b.q.dev.WriteFrame([]unix.Iovec{vector(&f[0], len(f))})
		if full(err) {
			return true
		}
		if err != nil {
			b.q.e.drop(DropTxError)
		}
		b.frames[0] = nil
		b.frames = b.frames[1:]
		b.bytes -= len(f)
	}
	b.frames, b.bytes = nil, 0
	b.busy.Store(false)
	return false
}

// wait returns when the device may take a frame again.
func (b *backlog) wait() {
	pause := b.q.e.NewTimer(backlogPoll)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-b.quit:
		return
	}
	fd := b.q.dev.FD()
	if fd < 0 {
		return
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
	_, _ = unix.Poll(fds, int(backlogWait/time.Millisecond))
}

// waiting is how many frames wait.
func (b *backlog) waiting() int {
	if !b.busy.Load() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.frames)
}

// stop forgets what waits, and returns when nothing is written any more.
func (b *backlog) stop() {
	b.mu.Lock()
	if !b.stopped {
		b.stopped = true
		close(b.quit)
	}
	b.mu.Unlock()
	b.drains.Wait()
}
