package tundev

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Feature is something that can be done with devices here, or why it can't.
type Feature struct {
	Name string `json:"name"` // an offload's is the one in the config
	// Ethtool is what ethtool -k calls an offload; "" for what it does not know.
	Ethtool string `json:"ethtool,omitempty"`
	OK      bool   `json:"ok"`
	// Detail says what is it good for, or what keeps it from working.
	Detail string `json:"detail"`
}

// Interface is what a device that exists says of itself.
type Interface struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	MTU        MTU    `json:"mtu"`
	Up         bool   `json:"up"`
	Persistent bool   `json:"persistent"`
	MultiQueue bool   `json:"multi_queue"`
	VnetHdr    bool   `json:"vnet_hdr"`
	Queues     int    `json:"queues"` // open now
}

// Report is what Probe found.
type Report struct {
	Kernel string `json:"kernel"` // release, as uname -r
	// OK reports whether a gateway has a device to serve.
	OK        bool       `json:"ok"`
	Interface *Interface `json:"interface,omitempty"` // of an existing device
	Features  []Feature  `json:"features"`
}

// Probe finds out what can be done with a device as o describes it: it makes one,
// tries each offload, writes superframes, and deletes it; or it takes the one that
// o.Attach names, which keeps what it was told, and gives it back. Nothing but the
// device's place, kind and name counts of o. What cannot be tried is reported with
// the reason.
func Probe(o Options) Report {
	r := Report{Kernel: kernelRelease()}
	o = Options{Kind: o.Kind, Name: o.Name, Attach: o.Attach, NetNS: o.NetNS, MTU: DefaultMTU, Queues: 1}
	if !o.Attach {
		o.Name = o.Kind.String() + "%d"
	}
	err := inNamespace(o.NetNS, func() error { r.probe(o); return nil })
	if err != nil {
		r.add(Feature{Name: "netns"}, err)
	}
	return r
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// add appends f, whose detail is err's text if there is one.
func (r *Report) add(f Feature, err error) {
	f.OK = err == nil
	if err != nil {
		f.Detail = err.Error()
	}
	r.Features = append(r.Features, f)
}

// probe is Probe in the calling thread's namespace.
func (r *Report) probe(o Options) {
	if o.Attach {
		r.Interface = lookAt(o.Name)
	}
	err := checkNode()
	r.add(Feature{Name: clonePath, Detail: "may be opened"}, err)
	if err != nil {
		return
	}
	d, err := r.device(o)
	if err != nil {
		return
	}
	r.OK = true
	if err := d.Control(func(fd int) error { r.offloads(d, fd); return nil }); err != nil {
		r.add(Feature{Name: "offloads"}, err)
	}
	if err := d.Close(); err != nil {
		r.add(Feature{Name: "close"}, err)
	}
	if !o.Attach {
		r.otherKind(o)
	}
}

// device opens the device that is tried, with all that its options leave alone.
func (r *Report) device(o Options) (*Device, error) {
	f := Feature{Name: "make a " + o.Kind.String(), Detail: "devices may be made in this network namespace"}
	if o.Attach {
		f = Feature{Name: "attach to " + o.Name, Detail: "this user may"}
	}
	d := newDevice(o)
	err := checkName(o)
	if err == nil {
		err = d.open()
	}
	if err == nil {
		err = d.init()
	}
	if err == nil && !o.Attach {
		err = d.configure()
	}
	r.add(f, err)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// otherKind tries to make a device of the other kind, too.
func (r *Report) otherKind(o Options) {
	o.Kind = TAP - o.Kind
	o.Name = o.Kind.String() + "%d"
	d := newDevice(o)
	err := errors.Join(d.open(), d.Close())
	r.add(Feature{Name: "make a " + o.Kind.String(), Detail: kindDetails[o.Kind]}, err)
}

var kindDetails = [...]string{TUN: "IP packets", TAP: "Ethernet frames, for guests with a network card"} //nolint:gochecknoglobals // read-only

// offloads tries what the kernel knows, each with what it depends on.
func (r *Report) offloads(d *Device, fd int) {
	flags, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	for _, x := range []struct {
		name, good string
		flag       int
	}{
		{"multi_queue", "several queues a device", unix.IFF_MULTI_QUEUE},
		{"vnet_hdr", "the header that the offloads below need", unix.IFF_VNET_HDR},
	} {
		missing := err
		if err == nil && flags&x.flag == 0 {
			missing = errors.New("this kernel has none")
		}
		r.add(Feature{Name: x.name, Detail: x.good}, missing)
	}
	if !d.features.VnetHdr {
		return
	}
	for _, x := range []struct {
		name, ethtool, good string
		bits                int
	}{
		{"checksum", "tx-checksumming", "checksums need not be computed here", bitsChecksum},
		{"tso4", "tx-tcp-segmentation", "TCP superframes over IPv4", bitsChecksum | bitsTSO4},
		{"tso6", "tx-tcp6-segmentation", "TCP superframes over IPv6", bitsChecksum | bitsTSO6},
		{"ecn", "tx-tcp-ecn-segmentation", "superframes with congestion marks stay whole", bitsChecksum | bitsTSO4 | bitsECN},
		{"uso", "tx-udp-segmentation", "UDP superframes from the device", bitsChecksum | bitsUSO},
	} {
		err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, x.bits)
		if err != nil {
			err = fmt.Errorf("the kernel refuses it (%w)", err)
		}
		r.add(Feature{Name: x.name, Ethtool: x.ethtool, Detail: x.good}, err)
	}
	if d.opts.Attach {
		return // its other side may be anything
	}
	for _, version := range []uint8{4, 6} {
		f := Feature{Name: fmt.Sprintf("superframe over IPv%d", version), Detail: "the kernel takes one that is written"}
		err := d.trySuperframe(version)
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("the kernel refuses a valid one (%w): segments are made here instead", unix.EINVAL)
		}
		r.add(f, err)
	}
}

// lookAt asks the kernel about an interface; nil if there is none.
func lookAt(name string) *Interface {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	a := link.Attrs()
	i := &Interface{Name: name, Kind: link.Type(), MTU: MTU(a.MTU), Up: a.RawFlags&unix.IFF_UP != 0} //nolint:gosec // an MTU
	if t, ok := link.(*netlink.Tuntap); ok {
		i.Kind = kindOf(t).String()
		i.Persistent, i.Queues = !t.NonPersist, t.Queues
		i.MultiQueue = t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
		i.VnetHdr = t.Flags&netlink.TUNTAP_VNET_HDR != 0
	}
	return i
}

// checkNode answers the usual faults of the device node in plain words.
func checkNode() error {
	f, err := os.OpenFile(clonePath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s is missing (%w): load the module (modprobe tun), or give the container the device (--device %s)", clonePath, errnoOf(err), clonePath)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s may not be opened (%w): run as root, or make it readable and writable for this user (chmod 0666 %s)", clonePath, errnoOf(err), clonePath)
	case err != nil:
		return fmt.Errorf("%s cannot be opened: %w", clonePath, errnoOf(err))
	}
	return f.Close()
}

// checkName compares the name asked for with the interfaces that are there.
func checkName(o Options) error {
	if strings.Contains(o.Name, "%") {
		return nil
	}
	link, err := netlink.LinkByName(o.Name)
	switch {
	case o.Attach && err != nil:
		return fmt.Errorf("there is no interface %s to attach to: make it (ip tuntap add %s mode %s user NAME), or leave out device.attach", o.Name, o.Name, o.Kind)
	case o.Attach && link.Type() != (&netlink.Tuntap{}).Type():
		return fmt.Errorf("interface %s is no TUN or TAP device (%s): name one that ip tuntap list shows", o.Name, link.Type())
	case !o.Attach && err == nil:
		return fmt.Errorf("an interface %s exists already: choose another device.name, set device.attach to use it, or delete it (ip link del %s)", o.Name, o.Name)
	}
	return nil
}
