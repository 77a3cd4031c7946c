package tundev

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State is what an interface is at one moment.
type State struct {
	Up  bool // administratively up
	MTU MTU
}

// watchBuffer is how many link messages may wait: a flap of every interface of a
// busy host at once.
const watchBuffer = 64

// Watch calls fn with the interface's state, first as it is and then at each
// change, until ctx is done (nil) or the interface is deleted (ErrGone). A device
// that came by its file alone may be in any namespace and cannot be watched: fn is
// called once. fn runs on the caller's goroutine.
func (d *Device) Watch(ctx context.Context, fn func(State)) error {
	last := State{Up: true, MTU: d.mtu}
	if d.index == 0 {
		fn(last)
		<-ctx.Done()
		return nil
	}
	updates := make(chan netlink.LinkUpdate, watchBuffer)
	done := make(chan struct{})
	if err := d.subscribe(updates, done); err != nil {
		return err
	}
	defer func() {
		close(done)
		for range updates { // until the library's goroutine has ended
		}
	}()
	known := false
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("device %s: the kernel's link messages ended", d.name)
			}
			if int(u.Index) != d.index {
				continue
			}
			if u.Header.Type == unix.RTM_DELLINK {
				return ErrGone
			}
			now := State{Up: u.IfInfomsg.Flags&unix.IFF_UP != 0, MTU: MTU(u.Attrs().MTU)} //nolint:gosec // the kernel's bound is MaxMTU
			if !known || now != last {
				known, last = true, now
				fn(now)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// subscribe asks for the link messages of the device's namespace, and for the
// state of now as the first of them.
func (d *Device) subscribe(updates chan netlink.LinkUpdate, done chan struct{}) error {
	o := netlink.LinkSubscribeOptions{ListExisting: true}
	ns, err := d.elsewhere()
	if err != nil {
		return err
	}
	if ns.IsOpen() {
		defer func() { _ = ns.Close() }()
		o.Namespace = &ns
	}
	if err := netlink.LinkSubscribeWithOptions(updates, done, o); err != nil {
		return fmt.Errorf("device %s: no link messages from the kernel: %w", d.name, err)
	}
	return nil
}
