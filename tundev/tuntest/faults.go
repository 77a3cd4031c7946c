package tuntest

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// faults are what writes run into.
type faults struct {
	mu      sync.Mutex
	failing error // of every write
	next    error // of the next left writes
	left    int
	refuses bool // superframes
	tried   int
}

// FailWrites makes every write return err until it is called with nil.
func (d *Device) FailWrites(err error) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.failing = err
}

// FailNext makes the next n writes return err: a burst of unix.EAGAIN, say, or of
// unix.ENOBUFS.
func (d *Device) FailNext(n int, err error) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.left, d.faults.next = n, err
}

// RefuseSuperframes makes writes of superframes return EINVAL, as kernels with a
// broken offload do.
func (d *Device) RefuseSuperframes(yes bool) {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	d.faults.refuses = yes
}

// errLost says that a frame is to vanish.
var errLost = errors.New("lost")

// fault returns why the device takes no frame now, nil if it does.
func (d *Device) fault() error {
	if !d.State().Up {
		return unix.EIO // tun.c, tun_get_user
	}
	f := &d.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried++
	switch {
	case f.failing != nil:
		return f.failing
	case f.left > 0:
		f.left--
		return f.next
	case d.opts.FullEvery > 0 && f.tried%d.opts.FullEvery == 0:
		return unix.EAGAIN
	case d.opts.LoseEvery > 0 && f.tried%d.opts.LoseEvery == 0:
		return errLost
	}
	return nil
}

func (d *Device) refusing() bool {
	d.faults.mu.Lock()
	defer d.faults.mu.Unlock()
	return d.faults.refuses
}
