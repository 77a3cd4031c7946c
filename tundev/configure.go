package tundev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// txQueueLen is how many frames the device holds for a reader that is off the
// processor: the kernel's 500 overflow when two hundred clients connect at once, and
// a SYN lost there costs its client a second. A flood of 700,000 packets a second
// fills it in 23 ms, a few time slices of others. An entry is a pointer.
const txQueueLen = 16384

// configure puts addresses and routes on the interface and sets it up.
func (d *Device) configure() error {
	o := d.opts
	link, err := netlink.LinkByName(d.name)
	if err != nil {
		return fmt.Errorf("device %s: %w", d.name, err)
	}
	d.index = link.Attrs().Index
	if o.Attach {
		// Whoever made the device has configured it as well, and we may not be
		// allowed to; what was asked for besides is done or refused below.
		if done, err := d.adopt(link, o); done || err != nil {
			return err
		}
	}
	if err := d.setMTU(link, o); err != nil {
		return err
	}
	if err := netlink.LinkSetTxQLen(link, txQueueLen); err != nil {
		return fmt.Errorf("device %s: queue length: %w", d.name, err)
	}
	for _, a := range o.Addresses {
		if err := d.addAddress(link, a, len(o.Addresses)); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("device %s cannot be set up: %w", d.name, err)
	}
	for _, r := range o.Routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Masked())}
		if err := netlink.RouteAdd(route); err != nil {
			return routeError(r, d.name, err)
		}
	}
	return nil
}

// setMTU gives a new interface its MTU.
func (d *Device) setMTU(link netlink.Link, o Options) error {
	if o.Attach || link.Attrs().MTU == int(d.mtu) {
		return nil
	}
	if err := netlink.LinkSetMTU(link, int(d.mtu)); err != nil {
		return fmt.Errorf("device %s refuses MTU %d (%w): set device.mtu between %d and %d", d.name, d.mtu, err, MinMTU, d.kind.MaxMTU())
	}
	return nil
}

// adopt takes an existing interface as it is; done says that nothing is left to do.
func (d *Device) adopt(link netlink.Link, o Options) (done bool, err error) {
	attrs := link.Attrs()
	if o.MTU != 0 && int(o.MTU) != attrs.MTU {
		if err := netlink.LinkSetMTU(link, int(o.MTU)); err != nil {
			return false, fmt.Errorf("device %s has MTU %d, and it cannot be changed to %d (%w): leave device.mtu out, or run as root", d.name, attrs.MTU, o.MTU, err)
		}
		attrs.MTU = int(o.MTU)
	}
	d.mtu = MTU(attrs.MTU) //nolint:gosec // the kernel's own bound is MaxMTU
	up := attrs.RawFlags&unix.IFF_UP != 0
	return up && len(o.Addresses) == 0 && len(o.Routes) == 0, nil
}

// addAddress adds one address. Containers often have IPv6 switched off for new
// interfaces; that is undone for this one where it may be, else noted, since a
// gateway for IPv4 alone is still of use.
func (d *Device) addAddress(link netlink.Link, a netip.Prefix, total int) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
	if a.Addr().Is4() {
		return addrError(a, d.name, netlink.AddrAdd(link, addr))
	}
	// The gateway at the other end claims no address of the interface's, and a
	// tentative one would refuse connections for a second (RFC 4862, section 5.4).
	addr.Flags = unix.IFA_F_NODAD
	err := netlink.AddrAdd(link, addr)
	if err == nil || !ipv6Disabled(err) {
		return addrError(a, d.name, err)
	}
	sysctl := "/proc/sys/net/ipv6/conf/" + d.name + "/disable_ipv6"
	if os.WriteFile(sysctl, []byte("0"), 0) == nil {
		return addrError(a, d.name, netlink.AddrAdd(link, addr))
	}
	if total == 1 {
		return fmt.Errorf("address %s cannot be put on %s: IPv6 is disabled here; enable it (sysctl net.ipv6.conf.all.disable_ipv6=0)", a, d.name)
	}
	d.notes = append(d.notes, fmt.Sprintf("IPv6 is disabled here, so %s goes without %s: enable it (sysctl net.ipv6.conf.all.disable_ipv6=0) or take the address out of device.addresses", d.name, a))
	return nil
}

// ipv6Disabled tells the kernel's answers to an address where IPv6 is off:
// EACCES from disable_ipv6, EAFNOSUPPORT and EOPNOTSUPP from ipv6.disable=1.
func ipv6Disabled(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

func addrError(a netip.Prefix, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("address %s cannot be put on %s: %w", a, name, err)
}

func routeError(r netip.Prefix, name string, err error) error {
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route %s by %s: the main table has a route to it already; take it out of device.routes, or delete the other (ip route del %s)", r, name, r)
	}
	return fmt.Errorf("route %s by %s cannot be added: %w", r, name, err)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
