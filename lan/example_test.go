package lan_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tungate/tungate/lan"
)

// A guest asks by ARP who has the gateway's address, and sends a packet then.
func ExampleLAN_Input() {
	now := time.Now()
	l, err := lan.New(lan.Options{
		MAC:       lan.MAC{2, 0, 0, 0, 0, 1},
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")},
	}, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	send := func(frame []byte) { fmt.Printf("to the guest: % x\n", frame[:20]) }

	request := []byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0a, 0x08, 0x06,
		0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x0a, 198, 18, 0, 10, 0, 0, 0, 0, 0, 0, 198, 18, 0, 1,
	}
	if l.Input(lan.Frame{Data: request}, now, send) == lan.Consumed {
		fmt.Println("the request was served")
	}
	packet := []byte{
		2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x0a, 0x08, 0x00,
		0x45, 0, 0, 20, 0, 1, 0, 0, 64, 1, 0xf0, 0xc4, 198, 18, 0, 10, 192, 0, 2, 1,
	}
	if l.Input(lan.Frame{Data: packet}, now, send) == lan.Deliver {
		fmt.Printf("for the stack: % x\n", packet[lan.HdrLen:][:4])
	}
	mac, ok := l.Lookup(netip.MustParseAddr("198.18.0.10"))
	fmt.Println("the guest is at", mac, ok)
	// Output:
	// to the guest: 02 00 00 00 00 0a 02 00 00 00 00 01 08 06 00 01 08 00 06 04
	// the request was served
	// for the stack: 45 00 00 14
	// the guest is at 02:00:00:00:00:0a true
}
