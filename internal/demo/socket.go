package demo

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// tuneSocket chooses cubic, or reno where cubic is not among those that a user may
// choose. Some machines default to bbr, which paces a flow to a third of what the
// device carries, and would be what is measured. A refusal costs speed alone.
func tuneSocket(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		for _, cc := range []string{"cubic", "reno"} {
			if unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, cc) == nil {
				return
			}
		}
	})
}
