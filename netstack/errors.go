package netstack

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tungate/tungate/flow"
)

// ErrUnsupported wraps what gVisor says and errno has no word for.
var ErrUnsupported = errors.New("netstack: unexpected stack error")

// translate gives a tcpip.Error, which is deliberately no error, the meaning a
// kernel socket's errno has. It is the only place that knows both.
func translate(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrWouldBlock:
		return flow.ErrWouldBlock
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	case *tcpip.ErrInvalidEndpointState:
		return net.ErrClosed
	}
	if e := errnoOf(err); e != 0 {
		return e
	}
	return errors.Join(ErrUnsupported, errors.New(err.String()))
}

// errnoOf is what Linux calls err, 0 if nothing.
func errnoOf(err tcpip.Error) unix.Errno {
	switch err.(type) {
	case *tcpip.ErrClosedForSend:
		return unix.EPIPE
	case *tcpip.ErrConnectionReset:
		return unix.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return unix.ECONNABORTED
	case *tcpip.ErrConnectionRefused:
		return unix.ECONNREFUSED
	case *tcpip.ErrTimeout:
		return unix.ETIMEDOUT
	case *tcpip.ErrNoBufferSpace:
		return unix.ENOBUFS
	case *tcpip.ErrHostUnreachable, *tcpip.ErrHostDown:
		return unix.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable, *tcpip.ErrNoNet:
		return unix.ENETUNREACH
	case *tcpip.ErrMessageTooLong:
		return unix.EMSGSIZE
	case *tcpip.ErrNotConnected:
		return unix.ENOTCONN
	case *tcpip.ErrPortInUse, *tcpip.ErrNoPortAvailable, *tcpip.ErrAlreadyBound:
		return unix.EADDRINUSE
	}
	return 0
}
