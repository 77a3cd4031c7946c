package tundev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
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

// Device is a TUN or TAP device with its queues.
type Device struct {
	opts     Options // as asked for, with the name the kernel chose
	name     string
	kind     Kind
	mtu      MTU
	features Features
	notes    []string
	files    []*file // one a queue
	queues   []Queue // the same
	given    bool    // came by descriptors that somebody else opened
	index    int     // interface index; 0 for a device that came by its file
	hwaddr   net.HardwareAddr
}

// Create is CreateContext that waits for a device for as long as it takes.
//
//nolint:contextcheck,nolintlint // for callers that wait for nothing; it is seen in theirs only
func Create(o Options) (*Device, error) {
	return CreateContext(context.Background(), o) //nolint:forbidigo // for callers that wait for nothing
}

// CreateContext makes the device that o describes, or attaches to it if o.Attach,
// in the network namespace o.NetNS, configures its interface and sets it up; or
// takes over the one whose descriptors o.FDs names or somebody sends to o.Socket,
// for which it waits until ctx is done. To make a device needs CAP_NET_ADMIN; to
// attach to a persistent one whose owner is this user, and to take one over, needs
// nothing. The error is one sentence that says what to do.
//
// Descriptors of o.FDs belong to the Device if there is no error, and are closed:
// it has duplicates, which a child process does not inherit.
//
// Whoever sends to o.Socket connects (SOCK_STREAM) and sends one message of at
// least a byte with all descriptors, and reads a line: "ok" and the device's name,
// or the error. In Python: s.connect(path); socket.send_fds(s, [b"tun"], [fd]).
func CreateContext(ctx context.Context, o Options) (*Device, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Socket == "" {
		return createAt(o)
	}
	s, err := receive(ctx, o.Socket)
	if err != nil {
		return nil, err
	}
	o.FDs = s.fds
	d, err := createAt(o)
	if err != nil {
		s.drop()
		s.tell("", err)
		return nil, err
	}
	s.tell(d.name, nil)
	return d, nil
}

// createAt is Create in the namespace that o names.
func createAt(o Options) (d *Device, err error) {
	how := create
	switch {
	case len(o.FDs) > 0:
		how = inherit
	case !o.Attach:
		def(&o.Name, o.Kind.String()+"%d")
		def(&o.MTU, DefaultMTU)
	}
	if o.CreateNetNS {
		if err := makeNamespace(o.NetNS); err != nil {
			return nil, err
		}
	}
	err = inNamespace(o.NetNS, func() (err error) {
		d, err = how(o)
		return err
	})
	return d, err
}

func newDevice(o Options) *Device {
	return &Device{opts: o, kind: o.Kind, mtu: o.MTU}
}

// create is Create in the calling thread's namespace.
func create(o Options) (*Device, error) {
	if err := checkNode(); err != nil {
		return nil, err
	}
	if err := checkName(o); err != nil {
		return nil, err
	}
	d := newDevice(o)
	for _, step := range []func() error{d.open, d.init, d.configure, d.proveSuperframes} {
		if err := step(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// Attach takes over a device that somebody else made, by its file: a TUN or TAP
// opened with IFF_NO_PI, in any network namespace, usually received from the
// process that made it. f is closed in any case. mtu must be the interface's.
func Attach(f *os.File, mtu MTU, o Offload) (*Device, error) {
	own, err := duplicate(f)
	if err := errors.Join(err, f.Close()); err != nil {
		if own != nil {
			own.close()
		}
		return nil, err
	}
	d := &Device{opts: Options{Offload: o}, mtu: mtu, given: true}
	def(&d.mtu, DefaultMTU)
	d.add(own)
	facts, err := factsOf(own)
	if err == nil {
		d.kind, d.opts.Kind = facts.kind, facts.kind
		err = own.with(facts.plain)
	}
	if err == nil {
		err = d.init()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// add takes another queue.
func (d *Device) add(f *file) {
	d.files = append(d.files, f)
	d.queues = append(d.queues, f)
}

// init finds out what is behind the descriptors and sets the offloads, which all
// queues share.
func (d *Device) init() error {
	for _, f := range d.files {
		facts, err := factsOf(f)
		if err != nil {
			return err
		}
		if err := facts.fit(d.opts); err != nil {
			return err
		}
		f.bare = !facts.vnetHdr
		d.name, d.features.VnetHdr, d.hwaddr = facts.name, facts.vnetHdr, facts.hwaddr
	}
	d.opts.Name = d.name
	return d.setOffload()
}

// setOffload sets the offloads that the options ask for.
func (d *Device) setOffload() error {
	return d.Control(func(fd int) error {
		if !d.features.VnetHdr {
			return d.opts.Offload.without()
		}
		// A persistent device keeps what its last user set: QEMU's 12 bytes, or
		// the byte order of its guest.
		if d.opts.Attach || d.given {
			_ = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 0)
			_ = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETBE, 0) // few kernels have it
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offload.HdrLen); err != nil {
			return fmt.Errorf("device %s keeps a virtio_net_hdr that is not %d bytes long (%w): set device.offload.vnet_hdr to off", d.name, offload.HdrLen, err)
		}
		features, notes, err := negotiate(d.opts.Offload, func(bits int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, bits) })
		features.VnetHdr = true
		d.features = features
		for _, n := range notes {
			if !slices.Contains(d.notes, n) { // once is enough, should they be set again
				d.notes = append(d.notes, n)
			}
		}
		return err
	})
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

// Options returns what the device was made with, its name in full. Given to Create
// once more, after the device was deleted, they make the same device again; see
// Recreatable.
func (d *Device) Options() Options {
	o := d.opts
	if o.Socket != "" {
		o.FDs = nil // those that were sent
	}
	return o
}

// Recreatable reports whether Create can do so. A device that came by descriptors
// alone cannot be had again; on a socket somebody may send another.
func (d *Device) Recreatable() bool { return !d.given || d.opts.Socket != "" }

// HardwareAddr returns the address of the kernel's interface, which is the guest's
// where the kernel is the guest; nil for a TUN.
func (d *Device) HardwareAddr() net.HardwareAddr { return d.hwaddr }

// Queues returns the device's queues; they end with the device.
func (d *Device) Queues() []Queue { return d.queues }

// Control calls fn with the first queue's descriptor, to pass it to another
// process or to ask the kernel about the device.
func (d *Device) Control(fn func(fd int) error) error { return d.files[0].with(fn) }

// Close deletes the device (one that another process holds open stays) and ends
// every reader. Later calls do nothing.
func (d *Device) Close() error {
	for _, f := range d.files {
		f.close()
	}
	return nil
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
