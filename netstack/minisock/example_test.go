package minisock_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

// device is what the table tells its owner: here, it only says what it gets.
type device struct{}

func (device) Emit(packet []byte, queue uint16) {
	fmt.Printf("to queue %d: %d bytes, TCP flags %#x\n", queue, len(packet), packet[33])
}

func (device) Gone(_ minisock.Handle, _ uint32, why minisock.Cause) {
	fmt.Println("gone:", why)
}

func (device) Ended(client, _ netip.AddrPort, why minisock.Cause) {
	fmt.Println(client, "ended:", why)
}

func (device) Stalled(client, _ netip.AddrPort, mtu uint16) {
	fmt.Println(client, "stalled:", mtu)
}

// A SYN is answered, is lost on its way back, and is forgotten in time.
func Example() {
	table, err := minisock.New(minisock.Options{SynAckRetries: 1}, device{})
	if err != nil {
		fmt.Println(err)
		return
	}

	// A SYN from 198.18.0.7:40000 to 203.0.113.9:443, as the device delivers it.
	frame, _ := hex.DecodeString("4500002800004000400638adc6120007cb0071099c4001bb" + "000010000000000050021000" + "00000000")
	var p offload.Packet
	if v := offload.Parse(&p, frame, len(frame)); v != offload.OK {
		fmt.Println(v)
		return
	}
	var hdr offload.Hdr
	segment := minisock.FromPacket(&p, &hdr, frame, 2)
	res := table.Inbound(&segment, 0)
	fmt.Println(res.Verdict, table.State(res.Handle))

	// The caller's loop sleeps until Next.
	for now := table.Next(0); now != minisock.Never; now = table.Next(now) {
		fmt.Println("after", now.Round(time.Second))
		table.Tick(now)
	}
	fmt.Println(table.State(res.Handle))
	// Output:
	// to queue 2: 44 bytes, TCP flags 0x12
	// dropped syn_received
	// after 1s
	// to queue 2: 44 bytes, TCP flags 0x12
	// after 10s
	// free
}
