package tundev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/tungate/tungate/offload"
)

// Feature is something a kernel can do for a device, or why it can't.
type Feature struct {
	Name string `json:"name"` // as ethtool names it, where it does
	OK   bool   `json:"ok"`
	// Detail says what is it good for, or what keeps it from working.
	Detail string `json:"detail"`
}

// Report is what Probe found.
type Report struct {
	Kernel   string    `json:"kernel"` // release, as uname -r
	Features []Feature `json:"features"`
}

// Probe finds out what devices can do here: it makes a device in the calling
// thread's namespace, tries each offload, writes a superframe, and deletes it. What
// cannot be tried is reported with the reason.
func Probe() Report {
	var r Report
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if err := probe(Options{Name: "tun%d"}); err != nil {
		r.add(clonePath, err, "")
		return r
	}
	r.add(clonePath, nil, "may be opened")
	w, err := tun.CreateTUN("tun%d", int(DefaultMTU))
	if err != nil {
		r.add("create", createError("tun%d", err), "")
		return r
	}
	r.add("create", nil, "devices may be made in this network namespace")
	f, err := takeFile(w)
	if err != nil {
		r.add("descriptor", err, "")
		return r
	}
	d := &Device{mtu: DefaultMTU, file: f}
	defer func() { _ = d.Close() }()
	if err := f.with(func(fd int) error { return r.offloads(d, fd) }); err != nil {
		r.add("offloads", err, "")
	}
	return r
}

func (r *Report) add(name string, err error, good string) {
	f := Feature{Name: name, OK: err == nil, Detail: good}
	if err != nil {
		f.Detail = err.Error()
	}
	r.Features = append(r.Features, f)
}

// offloads tries what TUNSETOFFLOAD knows, each with what it depends on.
func (r *Report) offloads(d *Device, fd int) error {
	if err := d.identify(fd); err != nil {
		return err
	}
	const csum, tso = unix.TUN_F_CSUM, unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	for _, o := range []struct {
		name string
		bits int
		good string
	}{
		{"tx-checksumming", csum, "checksums need not be computed here"},
		{"tx-tcp-segmentation", csum | unix.TUN_F_TSO4, "superframes over IPv4"},
		{"tx-tcp6-segmentation", csum | unix.TUN_F_TSO6, "superframes over IPv6"},
		{"tx-tcp-ecn-segmentation", tso | unix.TUN_F_TSO_ECN, "superframes that carry congestion marks stay whole"},
		{"tx-udp-segmentation", tso | unix.TUN_F_USO4 | unix.TUN_F_USO6, "not used yet"},
	} {
		r.add(o.name, offloadError(unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, o.bits)), o.good)
	}
	flags, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	if err == nil && flags&unix.IFF_MULTI_QUEUE == 0 {
		err = errors.New("this kernel has none")
	}
	r.add("multi_queue", err, "several queues a device; not used yet")
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso); err != nil {
		return nil //nolint:nilerr // reported above
	}
	r.add("superframe write", d.trySuperframe(), "the kernel takes a superframe that is written to it")
	return nil
}

// offloadError says what a refused TUNSETOFFLOAD means.
func offloadError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the kernel refuses it (%w)", err)
}

// trySuperframe writes a TCP superframe from a documentation address to another,
// which the kernel drops after it has judged it: nothing has the address.
func (d *Device) trySuperframe() error {
	link, err := netlink.LinkByName(d.name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	const l3, l4, payload, mss = 20, 20, 4000, 1000
	frame := make([]byte, offload.HdrLen+l3+l4+payload)
	h := offload.Hdr{Flags: offload.FlagNeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: mss, HdrLen: l3 + l4, CsumStart: l3, CsumOffset: offload.CsumOffsetTCP}
	h.Encode(frame)
	ip := frame[offload.HdrLen:]
	copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, offload.ProtoTCP, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1})
	binary.BigEndian.PutUint16(ip[2:], l3+l4+payload)
	binary.BigEndian.PutUint16(ip[10:], ^offload.Sum(ip[:l3], 0))
	copy(ip[l3:], []byte{0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, l4 / 4 << 4, offload.TCPAck, 1, 0})
	var iov unix.Iovec
	iov.Base = &frame[0]
	iov.SetLen(len(frame))
	err = d.file.WriteFrame([]unix.Iovec{iov})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the kernel refuses a valid superframe (%w): segments are made here instead", unix.EINVAL)
	}
	if err != nil {
		return os.NewSyscallError("writev", err)
	}
	return nil
}
