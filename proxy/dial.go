package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// upstream is one host socket that the runtime's poller watches.
type upstream struct {
	f  *os.File
	rc syscall.RawConn
}

// keepalive is how the kernel probes an idle upstream; a negative idle is never.
type keepalive struct {
	idle, interval time.Duration
	count          int
}

// set turns the probes on.
func (k keepalive) set(fd int) error {
	if k.idle < 0 {
		return nil
	}
	// The kernel counts whole seconds, from 1.
	seconds := func(d time.Duration) int { return max(1, int((d+time.Second/2)/time.Second)) }
	for _, o := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.idle)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.interval)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.count},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// dialer opens upstream sockets.
type dialer struct {
	mark      int
	device    string
	timeout   time.Duration
	keepalive keepalive
	files     *files
	own       ownSockets
}

// ownSockets are the local ends of upstream connections being dialled: one that
// shows up as a client has come back through the device.
type ownSockets struct {
	mu sync.Mutex
	m  map[netip.AddrPort]struct{}
}

func (o *ownSockets) add(a netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = make(map[netip.AddrPort]struct{})
	}
	o.m[a] = struct{}{}
}

func (o *ownSockets) remove(a netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.m, a)
}

func (o *ownSockets) has(a netip.AddrPort) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.m[a]
	return ok
}

// connect opens a TCP connection to dst within the dialer's timeout; the error
// unwraps to an errno.
func (d *dialer) connect(ctx context.Context, dst netip.AddrPort) (*upstream, error) {
	u, err := d.socket(dst, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	local, err := u.startConnect(dst)
	if err == nil {
		d.own.add(local)
		err = u.waitConnect(ctx, d.timeout)
		d.own.remove(local)
	}
	if err != nil {
		_ = u.f.Close()
		return nil, err
	}
	return u, nil
}

// rawSocket makes a non-blocking socket with the dialer's options.
func (d *dialer) rawSocket(dst netip.AddrPort, typ int) (int, error) {
	fd, err := d.plainSocket(dst, typ)
	if err != nil || typ != unix.SOCK_STREAM {
		return fd, err
	}
	if err := d.keepalive.set(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// plainSocket is rawSocket without keepalive, which takes four system calls that a
// connection of a moment has no need of.
func (d *dialer) plainSocket(dst netip.AddrPort, typ int) (int, error) {
	family := unix.AF_INET
	if dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := d.files.socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := d.setOptions(fd, typ); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// socket is rawSocket for the runtime's poller.
func (d *dialer) socket(dst netip.AddrPort, typ int) (*upstream, error) {
	fd, err := d.rawSocket(dst, typ)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "upstream")
	rc, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &upstream{f: f, rc: rc}, nil
}

func (d *dialer) setOptions(fd, typ int) error {
	if d.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, d.mark); err != nil {
			return err
		}
	}
	if d.device != "" {
		if err := unix.BindToDevice(fd, d.device); err != nil {
			return err
		}
	}
	if typ != unix.SOCK_STREAM {
		return nil
	}
	// The stack has gathered what there is to gather; holding back the last
	// small segment would only add a round trip (RFC 9293, section 3.7.4).
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// startConnect begins the connect and returns the address the kernel chose.
func (u *upstream) startConnect(dst netip.AddrPort) (local netip.AddrPort, err error) {
	err = u.control(func(fd int) (err error) {
		local, err = startConnect(fd, dst)
		return err
	})
	return local, err
}

func startConnect(fd int, dst netip.AddrPort) (netip.AddrPort, error) {
	if err := beginConnect(fd, dst); err != nil {
		return netip.AddrPort{}, err
	}
	return localAddress(fd)
}

func beginConnect(fd int, dst netip.AddrPort) error {
	if err := unix.Connect(fd, sockaddr(dst)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

func localAddress(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	return addrPortOf(sa), err
}

// waitConnect waits until the connect is decided.
func (u *upstream) waitConnect(ctx context.Context, timeout time.Duration) error {
	stop := context.AfterFunc(ctx, func() { _ = u.f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := u.f.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if ctx.Err() != nil { // the deadline above may have replaced AfterFunc's
		return ctx.Err()
	}
	var failure error
	err := u.rc.Write(func(fd uintptr) bool {
		done, err := connected(int(fd))
		failure = err
		return done
	})
	switch {
	case failure != nil:
		return failure
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unix.ETIMEDOUT
	case err != nil:
		return err
	}
	if !stop() {
		return ctx.Err() // at the last moment; its deadline may still come
	}
	return u.f.SetWriteDeadline(time.Time{})
}

// connected reports whether a connect is decided, and its error.
func connected(fd int) (bool, error) {
	if hasPeer(fd) {
		return true, nil
	}
	// No peer and no error is a connect under way.
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if errno != 0 {
		return true, unix.Errno(errno)
	}
	return false, nil
}

// hasPeer is getpeername(2) for its verdict alone; x/sys/unix's asks for the protocol
// as well.
func hasPeer(fd int) bool {
	var sa unix.RawSockaddrAny
	n := uint32(unix.SizeofSockaddrAny)
	//nolint:gosec // the kernel writes n bytes to sa at most
	_, _, e := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)))
	return e == 0
}

// control runs fn on the socket.
func (u *upstream) control(fn func(fd int) error) error {
	var err error
	if e := u.rc.Control(func(fd uintptr) { err = fn(int(fd)) }); e != nil {
		return e
	}
	return err
}

// closeWrite sends FIN.
func (u *upstream) closeWrite() {
	_ = u.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// abort sends RST and closes.
func (u *upstream) abort() {
	_ = u.control(resetOnClose)
	_ = u.f.Close()
}

// resetOnClose makes close send RST and forget what was not sent.
func resetOnClose(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneID(a.Addr().Zone())}
}

// zoneID returns the number of the interface that a zone names, 0 if there is
// none; a link-local address without one cannot be connected to (EINVAL).
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	link, err := net.InterfaceByName(zone)
	if err != nil {
		return 0
	}
	return uint32(link.Index) //nolint:gosec // the kernel's are positive int
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch s := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port)) //nolint:gosec // a port
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)) //nolint:gosec // a port
	}
	return netip.AddrPort{}
}

// dialResult classifies the outcome of a dial.
func dialResult(err error) DialResult {
	var errno unix.Errno
	if err == nil {
		return DialOK
	}
	if !errors.As(err, &errno) {
		return DialError
	}
	switch errno {
	case unix.ECONNREFUSED:
		return DialRefused
	case unix.ETIMEDOUT:
		return DialTimeout
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN:
		return DialUnreachable
	case unix.EADDRNOTAVAIL:
		return DialNoPorts
	case unix.EMFILE, unix.ENFILE:
		return DialNoFiles
	}
	return DialError
}
