package tuntest

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is one queue of a device.
type queue struct {
	d     *Device
	index int
	in    chan []byte // frames to be read
}

// put lets the queue's reader find f; false if it is full.
func (q *queue) put(f []byte) bool {
	select {
	case q.in <- f:
		return true
	default:
		return false
	}
}

// FD implements tundev.Queue: there is no descriptor.
func (q *queue) FD() int { return -1 }

// ReadFrame implements tundev.Queue.
func (q *queue) ReadFrame(iov []unix.Iovec) (int, error) {
	if !headed(iov) {
		return 0, unix.EINVAL
	}
	select {
	case f := <-q.in:
		return scatter(iov, f), nil
	case <-q.d.gone:
		return 0, q.d.why
	}
}

// TryReadFrame implements tundev.Queue.
func (q *queue) TryReadFrame(iov []unix.Iovec) (int, error) {
	if !headed(iov) {
		return 0, unix.EINVAL
	}
	select {
	case f := <-q.in:
		return scatter(iov, f), nil
	case <-q.d.gone:
		return 0, q.d.why
	default:
		return 0, unix.EAGAIN
	}
}

// WriteFrame implements tundev.Queue.
func (q *queue) WriteFrame(iov []unix.Iovec) error {
	d := q.d
	if err := d.ended(); err != nil {
		return err
	}
	if !headed(iov) {
		return unix.EINVAL
	}
	switch err := d.fault(); {
	case errors.Is(err, errLost):
		return nil
	case err != nil:
		return err
	}
	f := gather(iov)
	if f[1] != 0 && d.refusing() { // gso_type
		return unix.EINVAL
	}
	d.steer.learn(f, q.index)
	if !d.forward(f) {
		return unix.EAGAIN
	}
	d.written.Add(1)
	return nil
}

// forward hands a written frame to the far side; false if that is full. A link that
// is down there loses it.
func (d *Device) forward(f []byte) bool {
	if d.peer == nil {
		select {
		case d.out <- f:
			return true
		default:
			return false
		}
	}
	return !d.peer.State().Up || d.peer.queues[d.peer.steer.choose(f)].put(f)
}

// headed reports whether iov's first vector has room for the virtio_net_hdr, and
// there is room for more.
func headed(iov []unix.Iovec) bool {
	return len(iov) > 0 && iov[0].Len >= HdrLen && (len(iov) > 1 || iov[0].Len > HdrLen)
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
