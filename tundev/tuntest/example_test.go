package tuntest_test

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev/tuntest"
)

// The program under test writes to one end; the test reads from the other.
func Example() {
	d := tuntest.New(tuntest.Options{Queues: 2})
	frame := make([]byte, tuntest.HdrLen+4)
	copy(frame[tuntest.HdrLen:], "ping")

	// As a link endpoint does: the header in a vector of its own.
	iov := []unix.Iovec{{Base: &frame[0]}, {Base: &frame[tuntest.HdrLen]}}
	iov[0].SetLen(tuntest.HdrLen)
	iov[1].SetLen(4)

	d.FailNext(1, unix.ENOBUFS)
	fmt.Println(d.Queues()[1].WriteFrame(iov))
	fmt.Println(d.Queues()[1].WriteFrame(iov))
	fmt.Printf("%s\n", d.Recv(0)[tuntest.HdrLen:])
	// Output:
	// no buffer space available
	// <nil>
	// ping
}
