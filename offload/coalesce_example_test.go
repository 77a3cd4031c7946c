package offload_test

import (
	"fmt"

	"github.com/tungate/tungate/offload"
)

// A batch of two segments from a device without TSO.
func ExampleCoalescer() {
	batch := [][]byte{
		{
			0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0xb2, 0xb5, 198, 18, 0, 2, 192, 0, 2, 1,
			0x9c, 0x40, 0, 80, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, offload.TCPAck, 1, 0, 0xb4, 0xf4, 0, 0,
			'h', 'e', 'l', 'l',
		},
		{
			0x45, 0, 0, 42, 0, 2, 0x40, 0, 64, 6, 0xb2, 0xb6, 198, 18, 0, 2, 192, 0, 2, 1,
			0x9c, 0x40, 0, 80, 0, 0, 0, 104, 0, 0, 0, 0, 0x50, offload.TCPAck | offload.TCPPsh, 1, 0, 0x1a, 0x9b, 0, 0,
			'o', '!',
		},
	}

	c := offload.NewCoalescer(len(batch))
	deliver := func() {
		var m offload.Merged
		for c.Next(&m) {
			fmt.Printf("frames %v: %v of %d bytes, %q\n", m.IDs, m.Hdr.GSOType, m.Packet.Len, m.Payload)
		}
	}
	for i, frame := range batch {
		var p offload.Packet
		if v := offload.Parse(&p, frame, len(frame)); v != offload.OK {
			fmt.Println("dropped:", v)
			continue
		}
		if !offload.VerifyTransport(&p, [][]byte{frame}) {
			fmt.Println("dropped: checksum")
			continue
		}
		hdr := offload.Hdr{Flags: offload.FlagDataValid} // as was just proven
		fate, _ := c.Add(&hdr, &p, offload.Frame{Head: frame, ID: i})
		if fate == offload.Drain {
			deliver()
			fate, _ = c.Add(&hdr, &p, offload.Frame{Head: frame, ID: i})
		}
		if fate == offload.Pass {
			fmt.Printf("frame %d: passed\n", i)
		}
	}
	deliver()
	// Output:
	// frames [0 1]: tcpv4 of 46 bytes, ["hell" "o!"]
}
