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

const (
	// datagram is the payload of a UDP datagram that fills 1500 bytes.
	datagram = 1500 - 20 - 8
	// segments is how many of them one message holds: as many as fit into the
	// 65,535 bytes of an IP packet.
	segments = (65535 - 20 - 8) / datagram
	// discardPort is where nobody listens (RFC 863); nobody answers, either.
	discardPort = 9
	// blastMessages is how many messages go with one system call.
	blastMessages = 8
	// blastBuffer is the socket's send buffer, in bytes.
	blastBuffer = 8 << 20
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// blast sends UDP towards addr as fast as the kernel takes it, for span. Each message
// is a superframe (UDP_SEGMENT), which a device with USO gets whole; for one without
// the kernel cuts it into frames of 1500 bytes, faster than anybody reads them.
func blast(addr netip.Addr, span time.Duration) error {
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, blastBuffer),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, datagram),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: discardPort}))
	if err != nil {
		return err
	}
	payload := make([]byte, datagram*segments)
	iov := unix.Iovec{Base: &payload[0]}
	iov.SetLen(len(payload))
	var msgs [blastMessages]mmsghdr
	for i := range msgs {
		msgs[i].hdr.Iov = &iov
		msgs[i].hdr.SetIovlen(1)
	}
	for start := time.Now(); time.Since(start) < span; {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), blastMessages, 0, 0, 0)
		// ENOBUFS says that the device dropped a frame, as it must.
		if e != 0 && e != unix.ENOBUFS && e != unix.EAGAIN && e != unix.EINTR {
			return fmt.Errorf("sendmmsg: %w", e)
		}
	}
	return nil
}
