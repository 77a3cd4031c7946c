package tundev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// Features are the offloads a device has, both ways but for USO.
type Features struct {
	VnetHdr  bool // there is a virtio_net_hdr before each frame on the descriptor
	Checksum bool // partial checksums
	TSO4     bool // TCP superframes over IPv4
	TSO6     bool // TCP superframes over IPv6
	ECN      bool // also with congestion marks
	USO      bool // UDP superframes, from the device only
}

// TSO reports whether superframes of the IP version may be written.
func (f Features) TSO(version uint8) bool {
	if version == 6 {
		return f.TSO6
	}
	return f.TSO4
}

// String lists the features by their names in the config.
func (f Features) String() string {
	var s []byte
	for _, w := range []struct {
		name string
		on   bool
	}{{"checksum", f.Checksum}, {"tso4", f.TSO4}, {"tso6", f.TSO6}, {"ecn", f.ECN}, {"uso", f.USO}} {
		if !w.on {
			continue
		}
		if s != nil {
			s = append(s, ' ')
		}
		s = append(s, w.name...)
	}
	if s == nil {
		return "none"
	}
	return string(s)
}

// Device is a TUN device with one queue.
type Device struct {
	name     string
	kind     Kind
	mtu      MTU
	features Features
	notes    []string
	file     *file
	index    int    // interface index; 0 for a device that came by its file
	netns    string // the namespace it is in, as Options.NetNS
}

// Create makes the device that o describes, or attaches to it if o.Attach, in the
// network namespace o.NetNS, configures its interface and sets it up. To make it
// needs CAP_NET_ADMIN there; to attach to a persistent device whose owner is this
// user needs nothing. The error is one sentence that says what to do.
func Create(o Options) (d *Device, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if !o.Attach {
		def(&o.Name, "tun%d")
		def(&o.MTU, DefaultMTU)
	}
	err = inNamespace(o.NetNS, func() (err error) {
		d, err = create(o)
		return err
	})
	return d, err
}

// create is Create in the calling thread's namespace.
func create(o Options) (*Device, error) {
	if err := probe(o); err != nil {
		return nil, err
	}
	f, err := open(o)
	if err != nil {
		return nil, err
	}
	d := &Device{mtu: o.MTU, file: f, netns: o.NetNS}
	if err := f.with(func(fd int) error { return d.init(fd, o.Offload) }); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.configure(o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// open makes the device, or opens the one that exists.
func open(o Options) (*file, error) {
	if o.Attach {
		return openExisting(o.Name)
	}
	w, err := tun.CreateTUN(o.Name, int(o.MTU))
	if err != nil {
		return nil, createError(o.Name, err)
	}
	return takeFile(w)
}

// openExisting opens a persistent device. TUNSETIFF replaces its flags but for the
// kind and IFF_MULTI_QUEUE (tun.c, tun_set_iff), so vnet_hdr comes with us.
func openExisting(name string) (*file, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(attachError(name, err), unix.Close(fd))
	}
	return newFile(fd)
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

// Attach takes over a TUN device that somebody else made, by its file: a TUN
// opened with IFF_NO_PI and IFF_VNET_HDR, in any network namespace, usually
// received from the process that made it. f is closed in any case. mtu must be
// the interface's.
func Attach(f *os.File, mtu MTU, o Offload) (*Device, error) {
	own, err := duplicate(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	d := &Device{mtu: mtu, file: own}
	def(&d.mtu, DefaultMTU)
	if err := own.with(func(fd int) error { return d.init(fd, o) }); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// init finds the device's name and sets its offloads.
func (d *Device) init(fd int, o Offload) (err error) {
	if err := d.identify(fd); err != nil {
		return err
	}
	d.features, err = setOffload(fd, o)
	return err
}

// identify asks the kernel what is behind fd.
func (d *Device) identify(fd int) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return fmt.Errorf("the file descriptor is no TUN device (%w): pass one opened from /dev/net/tun with TUNSETIFF done", err)
	}
	d.name = ifr.Name()
	switch flags := ifr.Uint16(); {
	case flags&unix.IFF_TUN == 0:
		return fmt.Errorf("device %s is a TAP: make it with mode tun", d.name)
	case flags&unix.IFF_VNET_HDR == 0:
		return fmt.Errorf("device %s was made without vnet_hdr: open it with IFF_VNET_HDR", d.name)
	}
	return nil
}

// setOffload switches the device's offloads. TSO without checksums is EINVAL.
// TUN_F_TSO_ECN only spares the kernel from cutting superframes that carry CWR.
func setOffload(fd int, o Offload) (Features, error) {
	const csum = unix.TUN_F_CSUM
	const tso = csum | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if o.Checksum == Off {
		return Features{VnetHdr: true}, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)
	}
	if o.TSO4 != Off && o.TSO6 != Off {
		err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso)
		if err == nil {
			return Features{VnetHdr: true, Checksum: true, TSO4: true, TSO6: true, ECN: true}, nil
		}
	}
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, csum)
	if err == nil {
		return Features{VnetHdr: true, Checksum: true}, nil
	}
	if o.Checksum == On {
		return Features{}, fmt.Errorf("the kernel refuses checksum offload (%w): set device.offload.checksum to auto or off", err)
	}
	return Features{VnetHdr: true}, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)
}

// Kind returns what the device carries.
func (d *Device) Kind() Kind { return d.kind }

// Name returns the interface's name.
func (d *Device) Name() string { return d.name }

// MTU returns the MTU the device was made with.
func (d *Device) MTU() MTU { return d.mtu }

// Features returns the offloads in force.
func (d *Device) Features() Features { return d.features }

// Notes lists, a sentence each, what was asked for and could not be done but does
// not keep the device from working.
func (d *Device) Notes() []string { return d.notes }

// Queues returns the device's queues; they end with the device.
func (d *Device) Queues() []Queue { return []Queue{d.file} }

// Control calls fn with the device's descriptor, to pass it to another process.
func (d *Device) Control(fn func(fd int) error) error { return d.file.with(fn) }

// Close deletes the device (one that another process holds open stays) and ends
// every reader. Later calls do nothing.
func (d *Device) Close() error {
	d.file.close()
	return nil
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
