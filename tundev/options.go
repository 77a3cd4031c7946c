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
// device that carries IPv6, 65535 the kernel's limit for a TUN (tun.c MAX_MTU,
// less the Ethernet header on a TAP).
const (
	MinMTU     MTU = 68
	MinMTUv6   MTU = 1280
	MaxMTU     MTU = 65535
	DefaultMTU MTU = 1500
)

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

// Offload chooses the device's offloads. The zero value takes what the kernel
// gives.
type Offload struct {
	Checksum Mode // partial checksums both ways (TUN_F_CSUM)
	TSO      Mode // TCP superframes both ways (TUN_F_TSO4, TUN_F_TSO6); needs Checksum
}

// Options describes a device to create.
type Options struct {
	// Name is the interface name; a %d in it is replaced by the kernel. "" is
	// "tun%d".
	Name string
	// Attach takes the persistent TUN device called Name, made by somebody else
	// (ip tuntap add), instead of making one. It stays when the Device closes.
	Attach bool
	// NetNS is the network namespace the device is in: a path, the pid of a
	// process, or a name of ip-netns(8). "" is the caller's.
	NetNS string
	// MTU of the device; 0 is DefaultMTU, or an attached device's own.
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
	if o.MTU != 0 && (o.MTU < MinMTU || o.MTU > MaxMTU) {
		errs = append(errs, fmt.Errorf("mtu: %d is not between %d and %d", o.MTU, MinMTU, MaxMTU))
	}
	for i, a := range o.Addresses {
		if a.Addr().Is6() && o.MTU != 0 && o.MTU < MinMTUv6 {
			errs = append(errs, fmt.Errorf("addresses[%d]: %s needs an mtu of at least %d (RFC 8200, section 5)", i, a, MinMTUv6))
		}
	}
	if o.Offload.TSO == On && o.Offload.Checksum == Off {
		errs = append(errs, errors.New("offload.tso: on needs offload.checksum on or auto"))
	}
	return errors.Join(errs...)
}
