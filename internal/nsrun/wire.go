package nsrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

// setup is the gateway's first message.
type setup struct {
	Name      string
	MTU       tundev.MTU
	Addresses []netip.Prefix
	Routes    []netip.Prefix
	Offload   tundev.Offload
	Resolv    string // the command's resolv.conf
	UserNS    bool
}

// report is every message of the copy: the facts, with the device's fd, or the
// failure.
type report struct {
	Facts   *Facts   `json:",omitempty"`
	Failure *failure `json:",omitempty"`
}

// failure is an [Error] on its way.
type failure struct {
	Code  int
	Text  string
	Errno unix.Errno
}

func (f *failure) err() error {
	e := &Error{Code: f.Code, Text: f.Text}
	if f.Errno != 0 {
		e.Err = f.Errno
	}
	return e
}

func failureOf(err error) *failure {
	f := &failure{Code: ExitCode(err), Text: err.Error()}
	errors.As(err, &f.Errno)
	return f
}

// release is the gateway's second message.
type release struct{ Go bool }

// maxMessage holds a setup with a resolv.conf of maxResolv bytes, escaped.
const maxMessage = 128 << 10

// wire is one end of the socket pair. A message is a packet.
type wire struct{ conn *net.UnixConn }

// newWire takes over f.
func newWire(f *os.File) (wire, error) {
	defer f.Close() // FileConn has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return wire{}, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return wire{}, errors.Join(fmt.Errorf("%s is no unix socket", f.Name()), c.Close())
	}
	return wire{u}, nil
}

// wirePair returns the gateway's end and the file of the other.
func wirePair() (wire, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return wire{}, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "nsrun")
	ours, err := newWire(os.NewFile(uintptr(fds[0]), "nsrun"))
	if err != nil {
		return wire{}, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// send sends v, and a duplicate of fd unless it is negative.
func (w wire) send(v any, fd int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err = w.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// recv fills v and returns the fd that came along, -1 for none. The error is
// io.EOF when the other end is closed.
func (w wire) recv(v any) (int, error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(b, oob)
	if errors.Is(err, unix.ECONNRESET) { // closed with a message unread
		err = io.EOF
	}
	if err != nil {
		return -1, err
	}
	fd, err := firstFD(oob[:oobn])
	if err != nil {
		return -1, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		err = fmt.Errorf("a message is longer than %d bytes", maxMessage)
	} else {
		err = json.Unmarshal(b[:n], v)
	}
	if err != nil && fd >= 0 {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, err
}

// firstFD takes the fd out of a control message; there is room for one only.
func firstFD(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return -1, err
	}
	return fds[0], nil
}
