package tundev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// attachError puts what TUNSETIFF answered for an existing device into a sentence.
func attachError(o Options, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %s may not be attached to (%w): it belongs to another user; make it with user or group of this one (ip tuntap add %s mode %s user NAME), or run as root", o.Name, unix.EPERM, o.Name, o.Kind)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("device %s is in use (%w): end the program that holds it, or make it with multi_queue", o.Name, unix.EBUSY)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("device %s has no room for %d more queues (%w): set device.queues lower, or end the other program that serves it", o.Name, o.queues(), unix.E2BIG)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("device %s is of another kind than %s, or differs in multi_queue (%w): compare device.kind and device.queues with what ip -d link show %s says", o.Name, o.Kind, unix.EINVAL, o.Name)
	}
	return fmt.Errorf("device %s cannot be attached to: %w", o.Name, err)
}

// createError puts what TUNSETIFF answered into a sentence.
func createError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %s may not be made (%w): it needs CAP_NET_ADMIN; run as root, or grant it (setcap cap_net_admin+ep on the binary, --cap-add NET_ADMIN on the container)", name, unix.EPERM)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the name %s is taken (%w): choose another device.name, or end the program that holds it", name, errnoOf(err))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel refuses device %s (%w): the name is no valid interface name, or the kernel lacks an option of the device; choose another device.name, then try device.queues 1 and device.offload.vnet_hdr off", name, unix.EINVAL)
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
