package tundev

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// MTU is the largest IP packet the device carries, in bytes, link header excluded.
type MTU uint32

// The MTUs a device may have. 68 is RFC 791's minimum, 1280 RFC 8200's for a
// device that carries IPv6, 65535 the kernel's limit for a TUN (tun.c MAX_MTU),
// and a TAP has its Ethernet header within that.
const (
	MinMTU     MTU = 68
	MinMTUv6   MTU = 1280
	MaxMTU     MTU = 65535
	MaxMTUTAP  MTU = MaxMTU - ethernetLen
	DefaultMTU MTU = 1500
)

// MaxMTU returns the largest MTU that a device of this kind may have.
func (k Kind) MaxMTU() MTU {
	if k == TAP {
		return MaxMTUTAP
	}
	return MaxMTU
}

// MaxQueues is the kernel's limit for one device (tun.c, MAX_TAP_QUEUES).
const MaxQueues = 256

// Mode switches one offload.
type Mode uint8

// The positions of an offload switch.
const (
	Auto Mode = iota // on where the kernel takes it
	On               // on, and an error where the kernel refuses it
	Off              // off
)

// String returns the word the config uses.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case On:
		return "on"
	case Off:
		return "off"
	}
	return "unknown"
}

// MarshalText is String.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts auto, on and off.
func (m *Mode) UnmarshalText(b []byte) error {
	switch string(b) {
	case "auto":
		*m = Auto
	case "on":
		*m = On
	case "off":
		*m = Off
	default:
		return fmt.Errorf("%q is not one of auto, on, off", b)
	}
	return nil
}

// Kind is what a device carries.
type Kind uint8

// The kinds of device.
const (
	TUN Kind = iota // IP packets
	TAP             // Ethernet frames
)

// String returns the word the config uses.
func (k Kind) String() string {
	switch k {
	case TUN:
		return "tun"
	case TAP:
		return "tap"
	}
	return "unknown"
}

// UnmarshalText accepts tun and tap.
func (k *Kind) UnmarshalText(b []byte) error {
	switch string(b) {
	case "tun":
		*k = TUN
	case "tap":
		*k = TAP
	default:
		return fmt.Errorf("%q is not one of tun, tap", b)
	}
	return nil
}

// Offload chooses the device's offloads. The zero value takes what the kernel
// gives.
type Offload struct {
	VnetHdr  Mode // the virtio_net_hdr before each frame (IFF_VNET_HDR), which the others need
	Checksum Mode // partial checksums both ways (TUN_F_CSUM), which the others need
	TSO4     Mode // TCP superframes over IPv4 both ways (TUN_F_TSO4)
	TSO6     Mode // the same over IPv6 (TUN_F_TSO6)
	ECN      Mode // TCP superframes whose first segment carries CWR (TUN_F_TSO_ECN); needs TSO4 or TSO6
	USO      Mode // UDP superframes from the device (TUN_F_USO4, TUN_F_USO6); auto beside TSO only
}

// OnDelete is what follows the end of a device by somebody else's hand.
type OnDelete uint8

// What may follow.
const (
	Exit     OnDelete = iota // the gateway ends, with an error
	Recreate                 // the device is made, or attached to, again
)

// String returns the word the config uses.
func (a OnDelete) String() string {
	switch a {
	case Exit:
		return "exit"
	case Recreate:
		return "recreate"
	}
	return "unknown"
}

// UnmarshalText accepts exit and recreate.
func (a *OnDelete) UnmarshalText(b []byte) error {
	switch string(b) {
	case "exit":
		*a = Exit
	case "recreate":
		*a = Recreate
	default:
		return fmt.Errorf("%q is not one of exit, recreate", b)
	}
	return nil
}

// Options describes a device to create.
type Options struct {
	// Kind of the device.
	Kind Kind
	// Name is the interface name; a %d in it is replaced by the kernel. "" is
	// "tun%d" or "tap%d".
	Name string
	// Attach takes the persistent device called Name, made by somebody else
	// (ip tuntap add), instead of making one. It stays when the Device closes.
	Attach bool
	// FDs are inherited descriptors of a device that somebody else made, one a
	// queue; nothing is configured then but what Offload says. Empty is none.
	FDs []int
	// Socket is the path of a unix socket on which Create waits for such
	// descriptors: one message with all of them (SCM_RIGHTS), from this user or
	// root. It is there while Create waits; one that a killed program left is
	// replaced. "" is none.
	Socket string
	// NetNS is the network namespace the device is in: a path, the pid of a
	// process, or a name of ip-netns(8). "" is the caller's. With FDs or Socket
	// it only says where to look for the interface.
	NetNS string
	// CreateNetNS makes the namespace, with its loopback up, if NetNS is a name
	// that is not there yet; it stays when the Device closes, and when it could
	// not be made.
	CreateNetNS bool
	// Queues is how many queues the device gets; 0 is one for each processor
	// the program may use, at most MaxQueues. A device that was made without
	// multi_queue has one.
	Queues int
	// OnDelete says what the owner of the Device should do when somebody
	// deletes it; this package only keeps it.
	OnDelete OnDelete
	// MTU of the device, without the Ethernet header of a TAP; 0 is DefaultMTU,
	// or an attached device's own.
	MTU MTU
	// Addresses are put on the device, each with its prefix.
	Addresses []netip.Prefix
	// Routes are added through the device to the main table.
	Routes []netip.Prefix
	// Offload chooses the offloads.
	Offload Offload
}

// Validate reports every fault in o, joined.
func (o *Options) Validate() error {
	var errs []error
	if len(o.Name) > 15 {
		errs = append(errs, fmt.Errorf("name: %q is longer than the kernel's 15 bytes", o.Name))
	}
	if o.Attach && (o.Name == "" || strings.Contains(o.Name, "%")) {
		errs = append(errs, errors.New("attach: needs the name of the device that exists, in name"))
	}
	if o.MTU != 0 && (o.MTU < MinMTU || o.MTU > o.Kind.MaxMTU()) {
		errs = append(errs, fmt.Errorf("mtu: %d is not between %d and %d, the limits of a %s", o.MTU, MinMTU, o.Kind.MaxMTU(), o.Kind))
	}
	if o.Queues < 0 || o.Queues > MaxQueues {
		errs = append(errs, fmt.Errorf("queues: %d is not between 0 and %d", o.Queues, MaxQueues))
	}
	for i, a := range o.Addresses {
		if a.Addr().Is6() && o.MTU != 0 && o.MTU < MinMTUv6 {
			errs = append(errs, fmt.Errorf("addresses[%d]: %s needs an mtu of at least %d (RFC 8200, section 5)", i, a, MinMTUv6))
		}
	}
	if len(o.Socket) > maxSocketPath {
		errs = append(errs, fmt.Errorf("socket: %q is longer than the %d bytes of a socket's path", o.Socket, maxSocketPath))
	}
	errs = append(errs, o.validateWords()...)
	errs = append(errs, o.Offload.validate()...)
	return errors.Join(append(errs, o.contradictions()...)...)
}

// validateWords reports values that no word of the config stands for.
func (o *Options) validateWords() (errs []error) {
	if o.Kind > TAP {
		errs = append(errs, fmt.Errorf("kind: %d is not one of tun, tap", o.Kind))
	}
	if o.OnDelete > Recreate {
		errs = append(errs, fmt.Errorf("on_delete: %d is not one of exit, recreate", o.OnDelete))
	}
	for _, s := range append(o.Offload.switches(), offloadSwitch{name: "vnet_hdr", mode: o.Offload.VnetHdr}) {
		if s.mode > Off {
			errs = append(errs, fmt.Errorf("offload.%s: %d is not one of auto, on, off", s.name, s.mode))
		}
	}
	return errs
}

// contradictions reports every setting that cannot go with another.
func (o *Options) contradictions() (errs []error) {
	if o.CreateNetNS && !isNamespaceName(o.NetNS) {
		errs = append(errs, fmt.Errorf("create_netns: needs a name in netns, and %q is none: no path and no pid", o.NetNS))
	}
	if len(o.FDs) == 0 && o.Socket == "" {
		return errs
	}
	const given = "for a device that comes by fds or socket"
	for _, c := range []struct {
		bad       bool
		name, why string
	}{
		{len(o.FDs) > 0 && o.Socket != "", "socket", "set this or fds, not both"},
		{o.Attach, "attach", "leave it out " + given + ", which is attached to already"},
		{o.CreateNetNS, "create_netns", "leave it out " + given + ", which is in its namespace already"},
		{len(o.Addresses) > 0, "addresses", "leave them out " + given + ", which its maker configures"},
		{len(o.Routes) > 0, "routes", "leave them out " + given + ", which its maker configures"},
	} {
		if c.bad {
			errs = append(errs, fmt.Errorf("%s: %s", c.name, c.why))
		}
	}
	return errs
}

// validate reports what is asked for without what it needs.
func (o *Offload) validate() (errs []error) {
	needs := func(name string, m Mode, needed string, there bool) {
		if m == On && !there {
			errs = append(errs, fmt.Errorf("offload.%s: on needs offload.%s on or auto", name, needed))
		}
	}
	header := o.VnetHdr != Off
	needs("checksum", o.Checksum, "vnet_hdr", header)
	checksum, over := o.Checksum != Off, "checksum"
	if !header {
		checksum, over = false, "vnet_hdr"
	}
	needs("tso4", o.TSO4, over, checksum)
	needs("tso6", o.TSO6, over, checksum)
	needs("ecn", o.ECN, "tso4 or offload.tso6", checksum && (o.TSO4 != Off || o.TSO6 != Off))
	needs("uso", o.USO, over, checksum)
	return errs
}
