package tundev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// senderTimeout is how long a connected sender may take to send: others wait.
	senderTimeout = 5 * time.Second
	// maxFDs is how many descriptors a message can hold (linux/net/scm.h,
	// SCM_MAX_FD).
	maxFDs = 253
	// maxSocketPath is what sun_path holds besides its terminator.
	maxSocketPath = 107
)

// sender is the program that passed the descriptors.
type sender struct {
	conn *net.UnixConn
	fds  []int
}

// tell lets the sender know how it went, in a line, and ends the connection.
func (s *sender) tell(name string, err error) {
	line := "ok " + name + "\n"
	if err != nil {
		line = err.Error() + "\n"
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = s.conn.Write([]byte(line))
	_ = s.conn.Close()
}

// drop closes what was received.
func (s *sender) drop() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
}

// receive waits on a unix socket at path until somebody has passed descriptors, or
// ctx is done.
func receive(ctx context.Context, path string) (*sender, error) {
	l, err := listen(ctx, path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil, fmt.Errorf("nobody passed a device to %s: %w", path, context.Cause(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", path, err)
		}
		s := &sender{conn: conn}
		if err := allowed(conn); err != nil {
			s.tell("", err)
			continue
		}
		if err := s.read(ctx); errors.Is(err, errNothing) {
			_ = conn.Close()
		} else if err != nil {
			s.tell("", err)
			return nil, err
		} else {
			return s, nil
		}
	}
}

// listen makes the socket, in place of one that nobody listens to any more.
func listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if err := clearStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no directory for socket %s: make it (mkdir -p %s), or set device.socket to another path", path, filepath.Dir(path))
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("socket %s may not be made (%w): set device.socket to a path in a directory that this user may write to", path, errnoOf(err))
	case err != nil:
		return nil, fmt.Errorf("socket %s cannot be made: %w", path, errnoOf(err))
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("socket %s is of no use", path), l.Close())
	}
	if path[0] != '@' {
		// Whoever connects is asked who it is; this only saves it the trouble.
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, errors.Join(err, u.Close())
		}
	}
	return u, nil
}

// clearStale removes the socket that a program which was killed left at path.
func clearStale(ctx context.Context, path string) error {
	if path[0] == '@' {
		return nil // abstract: the kernel's business
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // nothing there, or Listen says what is wrong
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: set device.socket to another path, or delete it", path)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		fallthrough
	case errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("another program waits on socket %s: end it, or set device.socket to another path", path)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("socket %s is there, and it cannot be told whether somebody uses it (%w): delete it", path, errnoOf(err))
}

// allowed reports an error unless the sender is this user or root.
func allowed(conn *net.UnixConn) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := rc.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not pass a device to a gateway of user %d", cred.Uid, os.Geteuid())
	}
	return nil
}

// errNothing is a connection that ended without a message.
var errNothing = errors.New("no message")

// read takes the message.
func (s *sender) read(ctx context.Context) error {
	_ = s.conn.SetReadDeadline(time.Now().Add(senderTimeout))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*maxFDs))
	n, oobn, flags, _, err := s.conn.ReadMsgUnix(text, oob)
	if err != nil || n == 0 && oobn == 0 {
		return errNothing
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		if fds, rightsErr := unix.ParseUnixRights(&m); rightsErr == nil {
			s.fds = append(s.fds, fds...)
		}
	}
	switch {
	case err != nil:
	case flags&syscall.MSG_CTRUNC != 0:
		err = fmt.Errorf("the message held more descriptors than arrived (%d): raise the gateway's limit of open files (LimitNOFILE=, ulimit -n)", len(s.fds))
	case len(s.fds) == 0:
		err = errors.New("the message held no descriptor: send those of the device with it, one for each queue (SCM_RIGHTS)")
	}
	if err != nil {
		s.drop()
	}
	return err
}
