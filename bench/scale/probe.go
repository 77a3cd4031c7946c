package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// probe is one fresh connection: how long it took to open, and until its byte was
// back.
type probe struct {
	Open, Echo time.Duration
	Err        string
}

const (
	probeInterval = 50 * time.Millisecond
	probeTimeout  = 10 * time.Second
	// probeNice lets the prober run as soon as it can: it measures the gateway's
	// delay, not its own wait for a processor behind sixty clients.
	probeNice = -15
)

// runProbe opens a fresh connection each probeInterval, from the address given,
// until its input ends, and prints a line for each.
func runProbe(from netip.Addr, dests []netip.AddrPort) error {
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, probeNice); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	out := json.NewEncoder(os.Stdout)
	for i := 0; ; i++ {
		if err := out.Encode(probeOnce(from, dests[i%len(dests)])); err != nil {
			return err
		}
		time.Sleep(probeInterval)
	}
}

func probeOnce(from netip.Addr, to netip.AddrPort) (p probe) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return probe{Err: err.Error()}
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(probeTimeout))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}))
	start := time.Now()
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		p.Open = time.Since(start)
	}
	if err == nil {
		_, err = unix.Write(fd, []byte{3})
	}
	if err == nil {
		var n int
		var b [1]byte
		n, err = unix.Read(fd, b[:])
		p.Echo = time.Since(start)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		p.Err = err.Error()
		p.Open = max(p.Open, time.Since(start))
	}
	return p
}
