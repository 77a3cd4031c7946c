package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner alone connect: connect(2) on a unix socket asks for
// write permission.
const socketMode = 0o600

// listen binds e; the listener is nil when e is Off.
func listen(e endpoint) (net.Listener, error) {
	switch {
	case e.path != "":
		return listenUnix(e.path)
	case e.addr.IsValid():
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(e.addr))
		if err != nil {
			return nil, explainTCP(e, err)
		}
		return l, nil
	}
	return nil, nil
}

// explainTCP turns the errno of a failed bind into what to do about it.
func explainTCP(e endpoint, err error) error {
	hint := "use another address or port"
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		hint = "another program listens there; stop it, or set admin.listen to another port"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = "no interface of this host has the address; use one that it has, such as " + DefaultListen
	case errors.Is(err, unix.EACCES):
		hint = "a port below 1024 needs CAP_NET_BIND_SERVICE; use a higher one"
	}
	return fmt.Errorf("admin.listen: %s: %s (%w)", e, hint, errnoOf(err))
}

func listenUnix(path string) (net.Listener, error) {
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("admin.listen: %s%s: %w", unixPrefix, path, err)
	}
	l, err := bindUnix(path)
	if err != nil {
		return nil, explainUnix(path, err)
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(explainUnix(path, err), l.Close())
	}
	return &socketListener{Listener: l, path: path, made: made}, nil
}

// clearStale removes a socket that nobody listens on, as a killed gateway leaves
// it, and refuses to remove anything else.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errnoOf(err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket has this name; remove it, or use another path")
	}
	switch err := probeUnix(path); {
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: its backlog is full
		return errors.New("another program listens on this socket; stop it, or use another path")
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("a socket has this name, and whether it is in use cannot be told; remove it, or use another path (%w)", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("a stale socket has this name; remove it, or use another path (%w)", errnoOf(err))
	}
	return nil
}

// probeUnix connects without waiting and forgets the connection.
func probeUnix(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	_ = unix.Close(fd) // nothing was written
	return err
}

// bindUnix sets the mode before bind(2) gives the socket its name: Linux makes
// the file with the mode of the socket's inode less the umask (unix_bind_bsd), so
// it never exists with a wider one. The net package offers no such step.
func bindUnix(path string) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // net.FileListener has its own copy
	if err := unix.Fchmod(fd, socketMode); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

func explainUnix(path string, err error) error {
	hint := "use another path"
	switch {
	case errors.Is(err, unix.ENOENT):
		hint = "its directory does not exist; create it, or use another path"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		hint = "its directory is not writable; use one that is"
	}
	return fmt.Errorf("admin.listen: %s%s: %s (%w)", unixPrefix, path, hint, errnoOf(err))
}

// errnoOf strips the wrapping that would repeat the address or the path.
func errnoOf(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}

// socketListener removes its file when it closes, unless another has taken the
// name since.
type socketListener struct {
	net.Listener

	path string
	made fs.FileInfo
}

func (l *socketListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.made, now) {
		_ = os.Remove(l.path) // a stale file does no harm: the next start removes it
	}
	return l.Listener.Close()
}
