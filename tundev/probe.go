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

// Configured is the device as a gateway would have it.
type Configured struct {
	Kind     string   `json:"kind"`
	MTU      MTU      `json:"mtu"`
	Queues   int      `json:"queues"`
	Offloads string   `json:"offloads"` // names in the config, "none" if none
	Notes    []string `json:"notes"`    // what goes without, and why
	Error    string   `json:"error,omitempty"`
}

// Report is what Probe found.
type Report struct {
	Kernel string `json:"kernel"` // release, as uname -r
	// OK reports whether a gateway has a device to serve.
	OK         bool        `json:"ok"`
	Interface  *Interface  `json:"interface,omitempty"` // of an existing device
	Features   []Feature   `json:"features"`
	Configured *Configured `json:"configured,omitempty"`
}

// Probe finds out what can be done with a device as o describes it. It makes one
// under a name of its own, tries each offload, writes superframes, and deletes it;
// or it takes the one that o.Attach names, and gives it back, unless another
// program serves it. Then it does what Create would, but for addresses and routes.
// What cannot be tried is reported with the reason.
func Probe(o Options) Report {
	r := Report{Kernel: kernelRelease()}
	if len(o.FDs) > 0 || o.Socket != "" {
		o = Options{Kind: o.Kind, Offload: o.Offload}
		r.add(Feature{Name: "descriptors"}, errors.New("what comes by device.fds or device.socket is looked at when the gateway starts: this is about devices made here"))
	}
	o.Addresses, o.Routes = nil, nil
	if o.CreateNetNS {
		o.CreateNetNS = false
		if ns, err := openNamespace(o.NetNS); err != nil {
			o.NetNS = "" // a new one is like this one
		} else {
			_ = ns.Close()
		}
	}
	err := inNamespace(o.NetNS, func() error { r.probe(o); return nil })
	if err != nil {
		r.add(Feature{Name: "netns"}, err)
	}
	return r
}

// ProbeInterface is Probe for the device called name, of whichever kind it is.
func ProbeInterface(name string) Report {
	o := Options{Name: name, Attach: true}
	if i := lookAt(name); i != nil && i.Kind == TAP.String() {
		o.Kind = TAP
	}
	return Probe(o)
}

// Summary is the report in a sentence.
func (r *Report) Summary() string {
	if r.Configured != nil && r.Configured.Error != "" {
		return r.Configured.Error
	}
	var missing []string
	for _, f := range r.Features {
		if f.OK {
			continue
		}
		if !r.OK {
			return f.Detail
		}
		missing = append(missing, f.Name)
	}
	what := "TUN and TAP devices can be made here"
	if r.Interface != nil {
		what = fmt.Sprintf("%s %s can be served", r.Interface.Kind, r.Interface.Name)
	}
	if len(missing) == 0 {
		return what + ", with every offload"
	}
	return what + ", but for: " + strings.Join(missing, ", ")
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
	err := checkNode()
	r.add(Feature{Name: clonePath, Detail: "may be opened"}, err)
	if err != nil {
		return
	}
	tried := Options{Kind: o.Kind, Name: o.Kind.String() + "%d", Attach: o.Attach, MTU: DefaultMTU, Queues: 1}
	if o.Attach {
		tried.MTU, tried.Name = 0, o.Name
		if r.Interface = lookAt(o.Name); r.Interface != nil && r.Interface.Queues > 0 {
			r.add(Feature{Name: "attach to " + o.Name}, fmt.Errorf("device %s is served by another program, which a look would disturb: end it first", o.Name))
			return
		}
		if r.Interface != nil && r.Interface.Kind == (TAP-tried.Kind).String() {
			tried.Kind = TAP - tried.Kind // the config's fault is told of below
		}
	}
	if d, err := r.device(tried); err == nil {
		r.OK = true
		if err := d.Control(func(fd int) error { r.offloads(d, fd); return nil }); err != nil {
			r.add(Feature{Name: "offloads"}, err)
		}
		_ = d.Close()
		if !o.Attach {
			r.otherKind(tried)
		}
	}
	r.configured(o)
}

// configured does what Create would, and leaves the interface of a device that is
// there as it is.
func (r *Report) configured(o Options) {
	c := Configured{Notes: []string{}}
	r.Configured = &c
	d, err := rehearse(o)
	if err != nil {
		r.OK, c.Error = false, err.Error()
		return
	}
	c.Kind, c.MTU, c.Queues, c.Offloads = d.Kind().String(), d.MTU(), len(d.Queues()), d.Features().String()
	if r.Interface != nil {
		c.MTU = r.Interface.MTU
	}
	c.Notes = append(c.Notes, d.Notes()...)
	_ = d.Close()
}

// rehearse is Create in the calling thread's namespace, under another name: the one
// asked for may be one that somebody waits for.
func rehearse(o Options) (*Device, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Name != "" {
		if err := checkName(o); err != nil {
			return nil, err
		}
	}
	if !o.Attach {
		o.Name, o.NetNS = "", ""
		return Create(o)
	}
	d := newDevice(o)
	for _, step := range []func() error{d.open, d.init} {
		if err := step(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// device opens the device that is tried, with all that its options leave alone.
func (r *Report) device(o Options) (*Device, error) {
	f := Feature{Name: "make a " + o.Kind.String(), Detail: kindDetails[o.Kind]}
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

const since2008 = "Linux has had it since 2.6.27, so this is something else"

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
		since               string
	}{
		{"checksum", "tx-checksumming", "checksums need not be computed here", bitsChecksum, since2008},
		{"tso4", "tx-tcp-segmentation", "TCP superframes over IPv4", bitsChecksum | bitsTSO4, since2008},
		{"tso6", "tx-tcp6-segmentation", "TCP superframes over IPv6", bitsChecksum | bitsTSO6, since2008},
		{"ecn", "tx-tcp-ecn-segmentation", "superframes with congestion marks stay whole", bitsChecksum | bitsTSO4 | bitsECN, since2008},
		{"uso", "tx-udp-segmentation", "UDP superframes from the device", bitsChecksum | bitsUSO, "it needs Linux 6.2"},
	} {
		err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, x.bits)
		if err != nil {
			err = fmt.Errorf("the kernel refuses it (%w): %s", err, x.since)
		}
		r.add(Feature{Name: x.name, Ethtool: x.ethtool, Detail: x.good + " (" + x.ethtool + ")"}, err)
	}
	if d.opts.Attach {
		return // its other side may be anything
	}
	for _, version := range []uint8{4, 6} {
		f := Feature{Name: fmt.Sprintf("superframe, IPv%d", version), Detail: "the kernel takes a valid one that is written"}
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
