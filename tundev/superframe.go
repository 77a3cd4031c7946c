package tundev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
)

// ethernetLen is the header of an Ethernet frame without a tag.
const ethernetLen = 14

// proveSuperframes writes a superframe of each IP version to a device that was made
// here, for some kernels take the offload and refuse valid frames (6.6.44 did). A
// version that is refused goes without, both ways.
func (d *Device) proveSuperframes() error {
	if d.opts.Attach {
		return nil // its other side may be anything
	}
	return d.prove(d.trySuperframe)
}

// prove is proveSuperframes with the trial of a version.
func (d *Device) prove(try func(version uint8) error) error {
	o := d.opts.Offload
	again := false
	for _, s := range []struct {
		name    string
		version uint8
		mode    *Mode
	}{{"tso4", 4, &o.TSO4}, {"tso6", 6, &o.TSO6}} {
		if !d.features.TSO(s.version) {
			continue
		}
		err := try(s.version)
		switch {
		case err == nil:
		case !errors.Is(err, unix.EINVAL):
			// Whatever it is, it is not about superframes.
			d.notes = append(d.notes, fmt.Sprintf("device.offload.%s could not be tried (%v)", s.name, err))
		case *s.mode == On:
			return fmt.Errorf("the kernel takes device.offload.%s and then refuses a valid superframe (%w): set it to auto or off", s.name, unix.EINVAL)
		default:
			d.notes = append(d.notes, fmt.Sprintf("the kernel takes device.offload.%s and then refuses a valid superframe (%v), so it is off", s.name, unix.EINVAL))
			*s.mode, again = Off, true
		}
	}
	if !again {
		return nil
	}
	if o.TSO4 == Off && o.TSO6 == Off {
		o.ECN = Off
	}
	d.opts.Offload = o
	return d.setOffload()
}

// trySuperframe writes a TCP superframe that the kernel drops right after it has
// judged its virtio_net_hdr, wherever packets of this host are routed to: IPv4
// with a wrong header checksum (ip_rcv_core), IPv6 from a multicast address
// (ip6_rcv_core), each between documentation addresses else.
func (d *Device) trySuperframe(version uint8) error {
	frame := superframe(d.kind, version)
	var iov [2]unix.Iovec
	iov[0].Base = &frame[0]
	iov[0].SetLen(offload.HdrLen)
	iov[1].Base = &frame[offload.HdrLen]
	iov[1].SetLen(len(frame) - offload.HdrLen)
	err := d.files[0].WriteFrame(iov[:])
	if err != nil {
		return os.NewSyscallError("writev", err)
	}
	return nil
}

// superframe is a frame of four segments with its virtio_net_hdr.
func superframe(kind Kind, version uint8) []byte {
	const l4, payload, mss = 20, 4000, 1000
	link, l3, gso := 0, 20, offload.GSOTCPv4
	if kind == TAP {
		link = ethernetLen
	}
	if version == 6 {
		l3, gso = 40, offload.GSOTCPv6
	}
	frame := make([]byte, offload.HdrLen+link+l3+l4+payload)
	h := offload.Hdr{
		Flags: offload.FlagNeedsCsum, GSOType: gso, GSOSize: mss,
		HdrLen: uint16(link + l3 + l4), CsumStart: uint16(link + l3), CsumOffset: offload.CsumOffsetTCP,
	}
	h.Encode(frame)
	if kind == TAP {
		// To a locally administered address that is nobody's.
		copy(frame[offload.HdrLen:], []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1})
		binary.BigEndian.PutUint16(frame[offload.HdrLen+12:], etherType(version))
	}
	ip := frame[offload.HdrLen+link:]
	if version == 6 {
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], l4+payload)
		ip[6], ip[7] = offload.ProtoTCP, 64
		copy(ip[8:], []byte{0xff, 0x0e, 0x0d, 0xb8})
		copy(ip[24:], []byte{0x20, 0x01, 0x0d, 0xb8})
	} else {
		copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, offload.ProtoTCP, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1})
		binary.BigEndian.PutUint16(ip[2:], l4+20+payload)
		binary.BigEndian.PutUint16(ip[10:], offload.Sum(ip[:l3], 0)) // not its complement
	}
	copy(ip[l3:], []byte{0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, l4 / 4 << 4, offload.TCPAck, 1, 0})
	return frame
}

func etherType(version uint8) uint16 {
	if version == 6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}
