package tundev

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
)

// facts are what a descriptor says of the device behind it.
type facts struct {
	name    string
	kind    Kind
	vnetHdr bool
	multi   bool
	ns      string           // of the device, "" if it may not be asked
	hwaddr  net.HardwareAddr // of a TAP
}

// factsOf asks the kernel what is behind f.
func factsOf(f *file) (x facts, err error) {
	err = f.with(func(fd int) error { x, err = factsOfFD(fd); return err })
	return x, err
}

// factsOfFD is factsOf for a descriptor that has no owner here yet.
func factsOfFD(fd int) (facts, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return facts{}, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return facts{}, fmt.Errorf("the file descriptor is no TUN or TAP device (%w): pass one opened from %s with TUNSETIFF done", err, clonePath)
	}
	flags := ifr.Uint16()
	x := facts{name: ifr.Name(), vnetHdr: flags&unix.IFF_VNET_HDR != 0, multi: flags&unix.IFF_MULTI_QUEUE != 0}
	if ns, err := devNetNS(fd); err == nil {
		x.ns = ns.UniqueId()
		_ = ns.Close()
	}
	if flags&unix.IFF_TAP != 0 {
		x.kind = TAP
		x.hwaddr, err = hwaddrOf(fd)
	}
	return x, err
}

// hwaddrOf asks a TAP for the address of its interface, wherever that is.
func hwaddrOf(fd int) (net.HardwareAddr, error) {
	// struct ifreq: 16 bytes of name, then a struct sockaddr.
	var ifreq [40]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&ifreq[0]))); e != 0 { //nolint:gosec // the ioctl writes within ifreq
		return nil, os.NewSyscallError("SIOCGIFHWADDR", e)
	}
	return append(net.HardwareAddr(nil), ifreq[18:24]...), nil
}

// fit compares what is there with what is asked for.
func (x *facts) fit(o Options) error {
	if err := matchKind(x.name, x.kind, o.Kind); err != nil {
		return err
	}
	if !x.vnetHdr && o.Offload.VnetHdr == On {
		return fmt.Errorf("device %s was opened without vnet_hdr, and device.offload.vnet_hdr is on: open it with IFF_VNET_HDR, or set device.offload.vnet_hdr to auto", x.name)
	}
	return nil
}

// plain is an error if frames of the device behind fd begin with a struct tun_pi,
// as they do unless its maker asked for IFF_NO_PI. TUNGETIFF does not tell: its bit
// is IFF_NOFILTER's too, which is mostly set. So something is written that is
// EINVAL without a tun_pi, and with one a frame that the kernel drops: of no length,
// or Ethernet to nobody. A TAP without vnet_hdr has no such frame; see locate.
func (x *facts) plain(fd int) error {
	const tunPI = 4
	frame := make([]byte, tunPI, tunPI+offload.HdrLen+ethernetLen)
	if x.vnetHdr {
		// Where it is the virtio_net_hdr: headers longer than the frame.
		copy(frame, []byte{0, 0, 0xff, 0xff})
		frame = frame[:len(frame)+offload.HdrLen]
	}
	if x.kind == TAP {
		if !x.vnetHdr {
			return nil
		}
		frame = frame[:len(frame)+ethernetLen]
	}
	if _, err := unix.Write(fd, frame); err == nil || errors.Is(err, unix.EIO) { // EIO: taken, and the link is down
		return packetInfoError(x.name)
	}
	return nil
}

func packetInfoError(name string) error {
	return fmt.Errorf("device %s puts 4 bytes of packet information before each frame: open it with IFF_NO_PI", name)
}
