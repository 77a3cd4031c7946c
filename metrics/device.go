package metrics

import "github.com/tungate/tungate/tundev"

// Device is a snapshot of the device: what it is, where netstack.Stats counts
// what it does.
type Device struct {
	Up       bool // administratively up, and not lost
	MTU      tundev.MTU
	Queues   int
	Features tundev.Features
}

func deviceMetrics() []metric[Device] {
	return []metric[Device]{
		level("device_up", "1 while the device exists and is up, else 0.",
			func(d *Device) int { return truth(d.Up) }),
		level("device_mtu_bytes", "The largest IP packet the device carries.",
			func(d *Device) tundev.MTU { return d.MTU }),
		level("device_queues", "File descriptors that carry the device's frames.",
			func(d *Device) int { return d.Queues }),
		{
			name: "device_offload_enabled", kind: gauge, labels: []string{"offload"},
			help: "1 while the kernel does this work for the gateway, 0 when it refused or the config turned it off.",
			emit: func(d *Device, put put) {
				f := &d.Features
				put(float64(truth(f.VnetHdr)), "vnet_hdr")
				put(float64(truth(f.Checksum)), "checksum")
				put(float64(truth(f.TSO4)), "tso4")
				put(float64(truth(f.TSO6)), "tso6")
				put(float64(truth(f.ECN)), "ecn")
				put(float64(truth(f.USO)), "uso")
			},
		},
	}
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
