package tundev

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// probe answers the usual faults in plain words before the device is made.
func probe(name string) error {
	f, err := os.OpenFile(clonePath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s is missing (%w): load the module (modprobe tun), or give the container the device (--device %s)", clonePath, errnoOf(err), clonePath)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s may not be opened (%w): run as root, or make it readable and writable for this user (chmod 0666 %s)", clonePath, errnoOf(err), clonePath)
	case err != nil:
		return fmt.Errorf("%s cannot be opened: %w", clonePath, errnoOf(err))
	}
	if err := f.Close(); err != nil {
		return err
	}
	if strings.Contains(name, "%") {
		return nil
	}
	if _, err := netlink.LinkByName(name); err == nil {
		return fmt.Errorf("an interface %s exists already: choose another device.name, or delete it (ip link del %s)", name, name)
	}
	return nil
}

// createError puts what TUNSETIFF answered into a sentence.
func createError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %s may not be made (%w): it needs CAP_NET_ADMIN; run as root, or grant it (setcap cap_net_admin+ep on the binary, --cap-add NET_ADMIN on the container)", name, unix.EPERM)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the name %s is taken (%w): choose another device.name, or end the program that holds it", name, errnoOf(err))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel refuses device %s (%w): it needs TUN support with vnet_hdr, Linux 2.6.27 or newer, and a valid interface name", name, unix.EINVAL)
	}
	return fmt.Errorf("device %s cannot be made: %w", name, err)
}

// errnoOf strips the operation and path that the sentence already names.
func errnoOf(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}
