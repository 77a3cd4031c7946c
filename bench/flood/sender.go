package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
)

// runSender is hping3 for IPv6, which that does not know: SYNs at full rate, each from
// one of as many addresses, until SIGINT. Then it prints how many were sent, in hping3's
// words.
func runSender(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var stop atomic.Bool
	testutil.OnInterrupt(&stop)
	var (
		sent   int
		random = rand.NewPCG(1, 2)
		packet = newSYN6(to)
		sa     = &unix.SockaddrInet6{Addr: to.Addr().As16()}
	)
	for !stop.Load() {
		packet.draw(random.Uint64())
		switch err := unix.Sendto(fd, packet[:], 0, sa); {
		case err == nil:
			sent++
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR): // the device is full
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
	fmt.Printf("%d packets transmitted\n", sent)
	return nil
}

// syn6 is an IPv6 packet that is a SYN with the options hping3 sends: none.
type syn6 [60]byte

// spoofed6 is the first of its sources, which have a /64 each: that is whom shares are
// for.
var spoofed6 = netip.MustParseAddr("fd00:18:1::1")

func newSYN6(to netip.AddrPort) (p syn6) {
	src, dst := spoofed6.As16(), to.Addr().As16()
	p[0], p[6], p[7] = 0x60, unix.IPPROTO_TCP, 64
	p[5] = 20
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	binary.BigEndian.PutUint16(p[42:], to.Port())
	p[52], p[53] = 5<<4, 2 // SYN
	binary.BigEndian.PutUint16(p[54:], 512)
	return p
}

// draw makes the packet another's, by random bits.
func (p *syn6) draw(bits uint64) {
	binary.BigEndian.PutUint16(p[14:], uint16(bits%spoofed))
	binary.BigEndian.PutUint16(p[40:], uint16(bits>>16&0xffff)|1)
	binary.BigEndian.PutUint32(p[44:], uint32(bits>>32))
	binary.BigEndian.PutUint16(p[56:], 0)
	sum := uint32(unix.IPPROTO_TCP + 20) // the pseudo-header's, and all from the addresses on
	for i := 8; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[56:], ^uint16((sum>>16+sum)&0xffff))
}
