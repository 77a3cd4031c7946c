package tundev

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The features as TUNSETOFFLOAD has them. The kernel takes USO for both versions
// of IP or for none.
const (
	bitsChecksum = unix.TUN_F_CSUM
	bitsTSO4     = unix.TUN_F_TSO4
	bitsTSO6     = unix.TUN_F_TSO6
	bitsECN      = unix.TUN_F_TSO_ECN
	bitsUSO      = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// switches are the offloads in the order of their dependence: each name in the
// config, its bits, and the bits of which it needs one.
type offloadSwitch struct {
	name  string
	mode  Mode
	bits  int
	needs int
	where string // what has to be there, for the reader of an error
}

func (o *Offload) switches() []offloadSwitch {
	usoNeeds := bitsChecksum
	if o.USO == Auto {
		// Without TSO frames are merged here, which superframes would end.
		usoNeeds = bitsTSO4 | bitsTSO6
	}
	return []offloadSwitch{
		{"checksum", o.Checksum, bitsChecksum, 0, ""},
		{"tso4", o.TSO4, bitsTSO4, bitsChecksum, "offload.checksum"},
		{"tso6", o.TSO6, bitsTSO6, bitsChecksum, "offload.checksum"},
		{"ecn", o.ECN, bitsECN, bitsTSO4 | bitsTSO6, "offload.tso4 or offload.tso6"},
		{"uso", o.USO, bitsUSO, usoNeeds, "offload.checksum"},
	}
}

// negotiate finds the largest set of offloads that o allows and set, which is
// TUNSETOFFLOAD, takes. What it refuses is noted where o says auto, and an error
// where o says on. The kernel takes a whole set or leaves things as they are
// (tun.c, set_offload).
func negotiate(o Offload, set func(bits int) error) (Features, []string, error) {
	wanted := 0
	for _, s := range o.switches() {
		if s.mode != Off && (s.needs == 0 || wanted&s.needs != 0) {
			wanted |= s.bits
		}
	}
	if set(wanted) == nil {
		return featuresOf(wanted), nil, nil
	}
	if err := set(0); err != nil {
		return Features{}, nil, fmt.Errorf("the kernel refuses to switch the device's offloads (%w): set device.offload.vnet_hdr to off", err)
	}
	return negotiateEach(o, set)
}

// negotiateEach tries one offload after the other.
func negotiateEach(o Offload, set func(bits int) error) (Features, []string, error) {
	var notes []string
	have := 0
	for _, s := range o.switches() {
		if s.mode == Off {
			continue
		}
		missing := s.needs != 0 && have&s.needs == 0
		if missing && s.mode == Auto {
			continue // and what it needs is noted
		}
		err := set(have | s.bits)
		if err == nil {
			have |= s.bits
			continue
		}
		why := err.Error()
		if missing {
			why = "it needs " + s.where + ", which is off"
		}
		if s.mode == On {
			return Features{}, notes, fmt.Errorf("the kernel refuses device.offload.%s (%s): set it to auto or off", s.name, why)
		}
		notes = append(notes, fmt.Sprintf("the kernel refuses device.offload.%s (%s), so it is off", s.name, why))
	}
	return featuresOf(have), notes, nil
}

func featuresOf(bits int) Features {
	return Features{
		Checksum: bits&bitsChecksum != 0, TSO4: bits&bitsTSO4 != 0, TSO6: bits&bitsTSO6 != 0,
		ECN: bits&bitsECN != 0, USO: bits&bitsUSO != 0,
	}
}

// without is the error of a device that has no virtio_net_hdr, nil if no offload is
// insisted upon.
func (o *Offload) without() error {
	for _, s := range o.switches() {
		if s.mode == On {
			return fmt.Errorf("the device has no vnet_hdr, which device.offload.%s needs: open the device with IFF_VNET_HDR, or set device.offload.%s to auto or off", s.name, s.name)
		}
	}
	return nil
}
