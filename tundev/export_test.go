package tundev

import "golang.org/x/sys/unix"

// ProveWith is what Create does with a trial superframe of each IP version, with
// the test's own trial.
func (d *Device) ProveWith(try func(version uint8) error) error { return d.prove(try) }

// OpenWithout opens a new device on a kernel that refuses some flags of TUNSETIFF.
func OpenWithout(o Options, refused uint16) (*Device, error) {
	d := newDevice(o)
	err := d.openNew(func(queues int, flags uint16) error {
		if flags&refused != 0 {
			return unix.EINVAL
		}
		return d.openQueues(queues, flags)
	})
	if err != nil {
		return nil, err
	}
	return d, d.init()
}
