package config_test

import (
	"fmt"

	"github.com/tungate/tungate/config"
)

func ExampleParse() {
	c, err := config.Parse("gate.yaml", []byte("device: {name: tun0, mtu: 9000}"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Device.Name, c.Device.MTU, c.ShutdownTimeout)
	// Output: tun0 9000 10s
}

// All faults are reported at once.
func ExampleParse_faults() {
	_, err := config.Parse("gate.yaml", []byte("device:\n  mtu: abc\n  adresses: [198.18.0.1/15]\n"))
	fmt.Println(err)
	// Output:
	// gate.yaml:2:3: device.mtu: "abc" is not a number; use a whole number of bytes from 68 to 65535
	// gate.yaml:3:3: device.adresses: is not a known field; did you mean addresses?
}
