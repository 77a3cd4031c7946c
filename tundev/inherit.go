package tundev

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inherit makes a Device of descriptors that somebody else opened, one a queue. It
// closes them once it has all it needs; on an error they stay the caller's.
func inherit(o Options) (*Device, error) {
	d := newDevice(o)
	d.given = true
	for _, step := range []func() error{d.takeOver, d.init, d.locate} {
		if err := step(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	def(&d.mtu, DefaultMTU)
	d.opts.FDs = nil
	for _, fd := range o.FDs {
		_ = unix.Close(fd)
	}
	return d, nil
}

// takeOver duplicates the descriptors, once each has been looked at: what is no
// device is left alone, for it may be anything of this very program.
func (d *Device) takeOver() error {
	fds := d.opts.FDs
	if n := d.opts.Queues; n != 0 && n != len(fds) {
		return fmt.Errorf("%d descriptors were passed, and device.queues says %d: pass one for each queue, or leave device.queues out", len(fds), n)
	}
	var first facts
	for i, fd := range fds {
		x, err := d.examine(fd)
		if err != nil {
			return err
		}
		if i == 0 {
			if name := d.opts.Name; name != "" && !strings.Contains(name, "%") && name != x.name {
				return fmt.Errorf("descriptor %d is of device %s, and device.name says %s: leave device.name out, or pass the other device", fd, x.name, name)
			}
			first = x
		} else if err := x.sameDevice(&first, fds[:i], fd); err != nil {
			return err
		}
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("descriptor %d cannot be duplicated: %w", fd, err)
		}
		f, err := newFile(own)
		if err != nil {
			return err
		}
		d.add(f)
	}
	return nil
}

// examine reports what is behind fd, or why it cannot serve.
func (d *Device) examine(fd int) (facts, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return facts{}, fmt.Errorf("descriptor %d is not open (%w): whoever starts the gateway must pass it on, without FD_CLOEXEC, and device.fds must name it", fd, err)
	}
	x, err := factsOfFD(fd)
	if err == nil {
		err = x.fit(d.opts)
	}
	if err == nil {
		err = x.plain(fd)
	}
	if err != nil {
		err = fmt.Errorf("descriptor %d cannot serve: %w", fd, err)
	}
	return x, err
}

// sameDevice reports an error unless fd is another queue of the device that the
// descriptors before it are queues of.
func (x *facts) sameDevice(first *facts, before []int, fd int) error {
	switch {
	case x.name != first.name || x.ns != first.ns || !slices.Equal(x.hwaddr, first.hwaddr):
		return fmt.Errorf("descriptors %d and %d are of two devices, %s and %s: pass those of one, one for each queue", before[0], fd, first.name, x.name)
	case !x.multi:
		return fmt.Errorf("device %s was made without multi_queue and has one queue, and %d descriptors were passed: pass one, or open the device with IFF_MULTI_QUEUE", x.name, len(before)+1)
	}
	for _, b := range before {
		if b == fd || sameFile(b, fd) {
			return fmt.Errorf("descriptors %d and %d are the same queue of device %s: open each with its own TUNSETIFF", b, fd, x.name)
		}
	}
	return nil
}

// sameFile reports whether two descriptors are one open file, as far as the kernel
// tells.
func sameFile(a, b int) bool {
	const kcmpFile = 0 // linux/kcmp.h
	pid := uintptr(os.Getpid())
	r, _, e := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return e == 0 && r == 0
}

// locate looks for the interface behind the descriptors and asks it for its MTU. It
// may be in a namespace that this program cannot see into: then the MTU is the one
// that was asked for, and there is nothing to watch.
func (d *Device) locate() error {
	link, err := d.findLink()
	if link == nil || err != nil {
		return err
	}
	a := link.Attrs()
	d.index = a.Index
	if t, ok := link.(*netlink.Tuntap); ok && t.Flags&netlink.TUNTAP_NO_PI == 0 {
		return packetInfoError(d.name)
	}
	if d.mtu != 0 && int(d.mtu) != a.MTU {
		d.notes = append(d.notes, fmt.Sprintf("device %s has MTU %d, so device.mtu %d does not count: leave it out, or change the interface (ip link set %s mtu %d)", d.name, a.MTU, d.mtu, d.name, d.mtu))
	}
	d.mtu = MTU(a.MTU) //nolint:gosec // the kernel's own bound is MaxMTU
	return nil
}

// findLink returns the interface, nil if it is out of sight.
func (d *Device) findLink() (netlink.Link, error) {
	x, err := factsOf(d.files[0])
	if err != nil {
		return nil, err
	}
	ns, err := d.elsewhere()
	if err != nil {
		return nil, nil // out of sight
	}
	if ns.IsOpen() {
		defer func() { _ = ns.Close() }()
		return linkAt(ns, d.name), nil
	}
	link, err := netlink.LinkByName(d.name)
	if err != nil || x.ns == "" && !x.looksLike(link, len(d.files)) {
		return nil, nil // out of sight
	}
	return link, nil
}

// linkAt looks in another namespace, which takes CAP_SYS_ADMIN.
func linkAt(ns netns.NsHandle, name string) netlink.Link {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return nil
	}
	return link
}

// elsewhere opens the namespace the device is in, if that is not the calling
// thread's; a device that does not tell is where the options say.
func (d *Device) elsewhere() (netns.NsHandle, error) {
	ns := netns.None()
	err := d.Control(func(fd int) (err error) { ns, err = devNetNS(fd); return err })
	if err != nil {
		if d.given || d.opts.NetNS == "" {
			return netns.None(), nil
		}
		return openNamespace(d.opts.NetNS)
	}
	here, err := netns.Get()
	if err != nil {
		_ = ns.Close()
		return netns.None(), err
	}
	defer func() { _ = here.Close() }()
	if here.Equal(ns) {
		return netns.None(), ns.Close()
	}
	return ns, nil
}

// looksLike compares what the descriptor and an interface of its name say, for
// somebody who may not ask where the device is.
func (x *facts) looksLike(link netlink.Link, queues int) bool {
	t, ok := link.(*netlink.Tuntap)
	return ok && kindOf(t) == x.kind &&
		(!x.multi || t.Queues >= queues) && // the kernel counts them for such devices only
		(t.Flags&netlink.TUNTAP_VNET_HDR != 0) == x.vnetHdr &&
		(t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0) == x.multi &&
		slices.Equal(link.Attrs().HardwareAddr, x.hwaddr)
}

// devNetNS opens the namespace that the device behind fd is in (since Linux 5.6),
// which takes CAP_NET_ADMIN there.
func devNetNS(fd int) (netns.NsHandle, error) {
	ns, err := unix.IoctlRetInt(fd, unix.TUNGETDEVNETNS)
	if err != nil {
		return netns.None(), err
	}
	return netns.NsHandle(ns), nil
}
