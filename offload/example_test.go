package offload_test

import (
	"fmt"

	"github.com/tungate/tungate/offload"
)

// A superframe of the stack's, for a device without TSO.
func ExampleSegmenter() {
	frame := []byte{
		0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 6, 0xb2, 0xb3, 198, 18, 0, 2, 192, 0, 2, 1,
		0x9c, 0x40, 0, 80, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, offload.TCPAck | offload.TCPPsh, 1, 0, 0x88, 0x36, 0, 0,
		'h', 'e', 'l', 'l', 'o', '!',
	}
	hdr := offload.Hdr{
		Flags: offload.FlagNeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: 4,
		CsumStart: 20, CsumOffset: offload.CsumOffsetTCP,
	}

	var p offload.Packet
	if v := offload.Parse(&p, frame, len(frame)); v != offload.OK {
		fmt.Println("dropped:", v)
		return
	}
	var s offload.Segmenter
	if v := s.Reset(&hdr, &p, frame[:40], [][]byte{frame[40:]}); v != offload.OK {
		fmt.Println("dropped:", v)
		return
	}
	var seg offload.Segment
	for s.Next(&seg) {
		fmt.Printf("%d bytes, seq %d, %q\n", seg.Len, seg.Head[27], seg.Payload)
	}
	// Output:
	// 44 bytes, seq 100, ["hell"]
	// 42 bytes, seq 104, ["o!"]
}
