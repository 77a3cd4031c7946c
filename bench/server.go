package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// serve echoes on every port of the range, from one thread, for ever.
func serve(addr netip.Addr) error {
	runtime.LockOSThread()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	listeners := map[int]bool{}
	for port := firstPort; port < firstPort+serverPorts; port++ {
		fd, err := listen(addr, port)
		if err != nil {
			return fmt.Errorf("listen on %v port %d: %w", addr, port, err)
		}
		listeners[fd] = true
		if err := watch(ep, fd); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 64<<10)
	for {
		n, err := wait(ep, events, -1)
		if err != nil {
			return err
		}
		for _, e := range events[:n] {
			if fd := int(e.Fd); listeners[fd] {
				acceptAll(ep, fd)
			} else {
				echo(fd, buf)
			}
		}
	}
}

// listen opens a non-blocking listener.
func listen(addr netip.Addr, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), // inherited
		unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: port}),
		unix.Listen(fd, 4096))
}

// acceptAll takes every waiting connection.
func acceptAll(ep, listener int) {
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0,
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			return
		}
		if watch(ep, int(fd)) != nil {
			_ = unix.Close(int(fd))
		}
	}
}

// echo returns what has come, and closes when nothing more will.
func echo(fd int, buf []byte) {
	n, err := read(fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	if err == nil && n > 0 {
		if _, err = write(fd, buf[:n]); err == nil {
			return
		}
	}
	_ = unix.Close(fd)
}

func watch(ep, fd int) error {
	return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// The calls below bypass Go's scheduler: a thread that blocks in them keeps its P,
// so that waking it costs what it costs a C program. No signal interrupts them,
// since the roles run without asynchronous preemption.

func read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func connect(fd int, addr [4]byte, port int) error {
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr, Port: uint16(port)<<8 | uint16(port)>>8}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return errno
	}
	return nil
}

// wait is epoll_wait, for ever when timeout is negative.
func wait(ep int, events []unix.EpollEvent, timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int(timeout.Milliseconds())
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])),
			uintptr(len(events)), uintptr(ms), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}
