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
func probe(o Options) error {
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
	if strings.Contains(o.Name, "%") {
		return nil
	}
	link, err := netlink.LinkByName(o.Name)
	switch {
	case o.Attach && err != nil:
		return fmt.Errorf("there is no interface %s to attach to: make it (ip tuntap add %s mode tun user NAME), or leave out device.attach", o.Name, o.Name)
	case o.Attach && link.Type() != (&netlink.Tuntap{}).Type():
		return fmt.Errorf("interface %s is no TUN device (%s): name one that ip tuntap list shows", o.Name, link.Type())
	case !o.Attach && err == nil:
		return fmt.Errorf("an interface %s exists already: choose another device.name, set device.attach to use it, or delete it (ip link del %s)", o.Name, o.Name)
	}
	return nil
}

// attachError puts what TUNSETIFF answered for an existing device into a sentence.
func attachError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %s may not be attached to (%w): it belongs to another user; make it with user or group of this one (ip tuntap add %s mode tun user NAME), or run as root", name, unix.EPERM, name)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("device %s is in use (%w): end the program that holds it, or make it with multi_queue", name, unix.EBUSY)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("device %s is a TAP or has several queues (%w): make it with mode tun and without multi_queue", name, unix.EINVAL)
	}
	return fmt.Errorf("device %s cannot be attached to: %w", name, err)
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
