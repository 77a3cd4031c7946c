package tundev

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// open opens the device's queues: of a new device, or of the one that exists.
func (d *Device) open() error {
	o := d.opts
	if o.Attach {
		return d.openExisting()
	}
	if err := d.openNew(d.openQueues); err != nil {
		return createError(o.Name, err)
	}
	if len(d.files) == 1 && o.Kind == TUN && o.Offload.VnetHdr != Off {
		return d.passThrough()
	}
	return nil
}

// openNew makes the device, by open, with what is asked for, or with less where the
// kernel refuses that and the options leave it to auto.
func (d *Device) openNew(open func(queues int, flags uint16) error) error {
	o := d.opts
	n := o.queues()
	err := open(n, o.flags(n))
	refused := err
	try := func(ok bool, queues int, without uint16, note string) {
		// The other reason for EINVAL, a bad name, stays one.
		if !ok || !errors.Is(err, unix.EINVAL) {
			return
		}
		if err = open(queues, o.flags(queues)&^without); err == nil {
			d.notes = append(d.notes, fmt.Sprintf("the kernel refuses %s (%v), so device %s goes without", note, unix.EINVAL, d.name))
		}
	}
	fewer, bare := o.Queues == 0 && n > 1, o.Offload.VnetHdr == Auto
	try(fewer, 1, 0, "multi_queue")
	try(bare, n, unix.IFF_VNET_HDR, "vnet_hdr")
	try(fewer && bare, 1, unix.IFF_VNET_HDR, "multi_queue and vnet_hdr")
	if err != nil {
		return refused
	}
	return nil
}

// queues is how many queues are asked for.
func (o *Options) queues() int {
	if o.Queues == 0 {
		return min(runtime.GOMAXPROCS(0), MaxQueues)
	}
	return o.Queues
}

// flags are those of TUNSETIFF for a device with n queues.
func (o *Options) flags(n int) uint16 {
	flags := uint16(unix.IFF_NO_PI)
	if o.Kind == TAP {
		flags |= unix.IFF_TAP
	} else {
		flags |= unix.IFF_TUN
	}
	if o.Offload.VnetHdr != Off {
		flags |= unix.IFF_VNET_HDR
	}
	if n > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	return flags
}

// openQueues opens n queues of the device called d.opts.Name, which the first makes
// if it is not there; the error is the kernel's, and leaves no queue open.
func (d *Device) openQueues(n int, flags uint16) error {
	name := d.opts.Name
	for range n {
		f, real, err := openQueue(name, flags)
		if err != nil {
			_ = d.Close()
			d.files, d.queues = nil, nil
			return err
		}
		d.add(f)
		name = real
	}
	d.name = name
	return nil
}

// openQueue opens one queue of the device called name and returns the device's name
// in full. For a device that is there TUNSETIFF replaces its flags but for the kind
// and IFF_MULTI_QUEUE (tun.c, tun_set_iff), so vnet_hdr comes with us.
func openQueue(name string, flags uint16) (*file, string, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, "", errors.Join(err, unix.Close(fd))
	}
	f, err := newFile(fd)
	return f, ifr.Name(), err
}

// openExisting opens the queues of a persistent device.
func (d *Device) openExisting() error {
	o := &d.opts
	link, err := netlink.LinkByName(o.Name)
	if err != nil {
		return attachError(*o, err)
	}
	there, ok := link.(*netlink.Tuntap)
	if !ok {
		return attachError(*o, fmt.Errorf("it is a %s", link.Type()))
	}
	if err := matchKind(o.Name, kindOf(there), o.Kind); err != nil {
		return err
	}
	n, err := o.queuesOf(there)
	if err != nil {
		return err
	}
	flags := o.flags(n)
	if there.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 {
		flags |= unix.IFF_MULTI_QUEUE
		if there.Queues > 0 {
			d.notes = append(d.notes, fmt.Sprintf("device %s is served by another program as well, on %d queues, and each gets a part of the connections: end the other one", o.Name, there.Queues))
		}
	}
	if err := d.openQueues(n, flags); err != nil {
		return attachError(*o, err)
	}
	return nil
}

// queuesOf is how many queues of an existing device are asked for.
func (o *Options) queuesOf(there *netlink.Tuntap) (int, error) {
	switch multi := there.Flags&netlink.TUNTAP_MULTI_QUEUE != 0; {
	case multi:
		return o.queues(), nil
	case o.Queues > 1:
		return 0, fmt.Errorf("device %s was made without multi_queue and has one queue, not %d: set device.queues to 1, or make it anew (ip tuntap add %s mode %s multi_queue)", o.Name, o.Queues, o.Name, o.Kind)
	}
	return 1, nil
}

func kindOf(l *netlink.Tuntap) Kind {
	if l.Mode == netlink.TUNTAP_MODE_TAP {
		return TAP
	}
	return TUN
}

// matchKind compares the kind of an existing device with the one asked for.
func matchKind(name string, is, want Kind) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("device %s is a %s and device.kind says %s: set device.kind to %s, or name another device", name, is, want, is)
}

// passThrough lets wireguard/tun take the one queue of a TUN and takes it back.
func (d *Device) passThrough() error {
	old := d.files[0]
	var fd int
	err := old.with(func(n int) (err error) { fd, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0); return err })
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), clonePath)
	w, err := tun.CreateTUNFromFile(f, int(d.mtu))
	if err != nil {
		// What it could not do, init and configure do or report.
		return f.Close()
	}
	own, err := takeFile(w)
	if err != nil {
		return err
	}
	old.close()
	d.files[0], d.queues[0] = own, own
	return nil
}

// takeFile keeps the device that w made and ends w, whose goroutines watch a link
// that nobody asks it about.
func takeFile(w tun.Device) (*file, error) {
	f, err := duplicate(w.File())
	err = errors.Join(err, w.Close())
	// The goroutines may block on a full channel, and close it last.
	for range w.Events() {
	}
	if err != nil && f != nil {
		f.close()
	}
	return f, err
}

// duplicate returns a descriptor of its own for what f is.
func duplicate(f *os.File) (*file, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := rc.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	return newFile(fd)
}
