// Package tuntest has devices in memory with the contract of package tundev, for
// tests that need no kernel, no root and no time.
//
// [Pair] joins two devices back to back: a frame written to one is read from the
// other, superframes and partial checksums untouched, as if a TUN's two sides were
// two programs. A test puts the stack under test on one and a client's stack on
// the other. [New] gives a single device whose far side is the test itself: Send
// and Recv. Faults come on command: [Device.FailWrites], [Device.Delete].
package tuntest

import (
	"net"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

// HdrLen is the length of the virtio_net_hdr each frame begins with.
const HdrLen = 10

// defaultDepth is how many frames wait in a device: TUN's default txqueuelen.
const defaultDepth = 500

// Options describes a device. The zero value is a device with all offloads and an
// MTU of 1500.
type Options struct {
	MTU   tundev.MTU
	Depth int // frames that wait unread; one more is EAGAIN
	// NoChecksum and NoTSO take an offload away.
	NoChecksum, NoTSO bool
	// Kind of the device; frames of a TAP begin with an Ethernet header after
	// the virtio_net_hdr.
	Kind tundev.Kind
	// FullEvery makes each write of that number, 25 say, find the queue full:
	// EAGAIN, and a loss for whoever does not try again. 0 is never.
	FullEvery int
	// LoseEvery makes each write of that number vanish, as on a wire. 0 is none.
	LoseEvery int
}

// Device is one end. Its methods may be called from any goroutine.
type Device struct {
	opts     Options
	in       chan []byte // frames to be read from the device
	peer     *Device     // where written frames go; nil: to out
	out      chan []byte
	gone     chan struct{} // closed by Close or Delete
	goneOnce sync.Once

	mu      sync.Mutex
	why     error // valid once gone is closed
	failing error
	refuses bool // superframes
	written int
	tried   int
}

// New returns a device whose far side is the caller.
func New(o Options) *Device {
	if o.MTU == 0 {
		o.MTU = tundev.DefaultMTU
	}
	if o.Depth == 0 {
		o.Depth = defaultDepth
	}
	return &Device{opts: o, in: make(chan []byte, o.Depth), out: make(chan []byte, o.Depth), gone: make(chan struct{})}
}

// Pair returns two devices, each the far side of the other.
func Pair(o Options) (*Device, *Device) {
	a, b := New(o), New(o)
	a.peer, b.peer = b, a
	return a, b
}

// Queues returns the device's one queue.
func (d *Device) Queues() []tundev.Queue { return []tundev.Queue{d} }

// Kind returns what the device carries.
func (d *Device) Kind() tundev.Kind { return d.opts.Kind }

// MTU returns the device's MTU.
func (d *Device) MTU() tundev.MTU { return d.opts.MTU }

// Features returns the offloads the device has.
func (d *Device) Features() tundev.Features {
	tso := !d.opts.NoChecksum && !d.opts.NoTSO
	return tundev.Features{VnetHdr: true, Checksum: !d.opts.NoChecksum, TSO4: tso, TSO6: tso, ECN: tso}
}

// Send lets the device's reader find a frame, virtio_net_hdr first; it keeps a
// copy. False says that the queue is full and the frame lost.
func (d *Device) Send(frame []byte) bool {
	select {
	case d.in <- append([]byte(nil), frame...):
		return true
	default:
		return false
	}
}

// Recv returns the next frame written to the device, nil if none came in time or
// the device is gone.
func (d *Device) Recv(within time.Duration) []byte {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case f := <-d.out:
		return f
	case <-timeout.C:
	case <-d.gone:
	}
	return nil
}

// FailWrites makes every write return err until it is called with nil.
func (d *Device) FailWrites(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = err
}

// RefuseSuperframes makes writes of superframes return EINVAL, as kernels with a
// broken offload do.
func (d *Device) RefuseSuperframes(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = yes
}

// Written returns how many frames were written to the device so far.
func (d *Device) Written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// Close ends the device as its owner does: net.ErrClosed for everybody.
func (d *Device) Close() error {
	d.end(net.ErrClosed)
	return nil
}

// Delete ends the device as ip link del does: tundev.ErrGone for everybody.
func (d *Device) Delete() { d.end(tundev.ErrGone) }

func (d *Device) end(why error) {
	d.goneOnce.Do(func() {
		d.mu.Lock()
		d.why = why
		d.mu.Unlock()
		close(d.gone)
	})
}

// fault returns why the device takes no frame now, nil if it does.
func (d *Device) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil {
		return d.why
	}
	return d.failing
}

// try counts a write.
func (d *Device) try() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried++
	return d.tried
}

// every reports whether the n-th is one of each so many.
func every(n, each int) bool { return each > 0 && n%each == 0 }

// FD implements tundev.Queue: there is no descriptor.
func (d *Device) FD() int { return -1 }

// ReadFrame implements tundev.Queue.
func (d *Device) ReadFrame(iov []unix.Iovec) (int, error) {
	select {
	case f := <-d.in:
		return scatter(iov, f), nil
	case <-d.gone:
		return 0, d.fault()
	}
}

// TryReadFrame implements tundev.Queue.
func (d *Device) TryReadFrame(iov []unix.Iovec) (int, error) {
	select {
	case f := <-d.in:
		return scatter(iov, f), nil
	case <-d.gone:
		return 0, d.fault()
	default:
		return 0, unix.EAGAIN
	}
}

// WriteFrame implements tundev.Queue.
func (d *Device) WriteFrame(iov []unix.Iovec) error {
	if err := d.fault(); err != nil {
		return err
	}
	tried := d.try()
	if every(tried, d.opts.FullEvery) {
		return unix.EAGAIN
	}
	if every(tried, d.opts.LoseEvery) {
		return nil
	}
	f := gather(iov)
	if f[1] != 0 && d.refusing() { // gso_type
		return unix.EINVAL
	}
	to := d.out
	if d.peer != nil {
		to = d.peer.in
	}
	select {
	case to <- f:
	default:
		return unix.EAGAIN
	}
	d.mu.Lock()
	d.written++
	d.mu.Unlock()
	return nil
}

func (d *Device) refusing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refuses
}

// slice is the memory that v describes.
func slice(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) } //nolint:gosec // what the vector says of its own memory

// scatter copies f over iov; like readv on a TUN it cuts what does not fit.
func scatter(iov []unix.Iovec, f []byte) int {
	n := 0
	for _, v := range iov {
		n += copy(slice(v), f[n:])
	}
	return n
}

func gather(iov []unix.Iovec) []byte {
	f := make([]byte, 0, 2048)
	for _, v := range iov {
		f = append(f, slice(v)...)
	}
	return f
}
