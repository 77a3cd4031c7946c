package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

func newDialer() *dialer {
	return &dialer{timeout: patience, keepalive: keepalive{time.Minute, 15 * time.Second, 9}, files: newFiles()}
}

// fullListener returns the address of a listener that answers no SYN: its queue
// of connections nobody accepts is full.
func fullListener(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(addr, 0))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	// A queue of length 0 holds one.
	to := addrPortOf(sa)
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return to
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T, id flow.ID) netip.AddrPort {
	t.Helper()
	// Held but not listening, so that nobody else comes to listen there.
	free := netip.AddrPortFrom(id.Destination.Addr(), 0)
	u, err := newDialer().socket(free, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.f.Close() })
	var at netip.AddrPort
	if err := u.control(func(fd int) error {
		if err := unix.Bind(fd, sockaddr(free)); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		at = addrPortOf(sa)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestDial(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		r := newRig(t, simple, id, Options{})
		u, err := newDialer().connect(t.Context(), r.id.Destination)
		if err != nil {
			t.Fatal(err)
		}
		defer u.f.Close()
		c, err := r.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, o := range []struct {
			name             string
			level, opt, want int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{"SO_ERROR", unix.SOL_SOCKET, unix.SO_ERROR, 0},
		} {
			if err := u.control(func(fd int) error {
				got, err := unix.GetsockoptInt(fd, o.level, o.opt)
				if err == nil && got != o.want {
					err = fmt.Errorf("is %d, want %d", got, o.want)
				}
				return err
			}); err != nil {
				t.Errorf("%s: %v", o.name, err)
			}
		}
	})
}

// TestDialFailures: each error, its class, and no socket left behind.
func TestDialFailures(t *testing.T) {
	multicast := map[string]string{"ipv4": "224.0.0.1:9", "ipv6": "[ff02::1]:9"}
	for family, id := range flows(flow.TCP) {
		for _, tc := range []struct {
			name   string
			to     func(t *testing.T) netip.AddrPort
			change func(d *dialer)
			want   error
			result DialResult
		}{
			{"refused", func(t *testing.T) netip.AddrPort { t.Helper(); return closedPort(t, id) }, nil, unix.ECONNREFUSED, DialRefused},
			{
				"silent",
				func(t *testing.T) netip.AddrPort { t.Helper(); return fullListener(t, id.Destination.Addr()) },
				func(d *dialer) { d.timeout = 30 * time.Millisecond }, unix.ETIMEDOUT, DialTimeout,
			},
			// TCP has no multicast, so the kernel has no route to it.
			{"no route", func(*testing.T) netip.AddrPort { return netip.MustParseAddrPort(multicast[family]) }, nil, unix.ENETUNREACH, DialUnreachable},
			{
				"no such interface", func(*testing.T) netip.AddrPort { return id.Destination },
				func(d *dialer) { d.device = "tungate-none" }, unix.ENODEV, DialError,
			},
		} {
			t.Run(family+", "+tc.name, func(t *testing.T) {
				to := tc.to(t)
				d := newDialer()
				if tc.change != nil {
					tc.change(d)
				}
				before := descriptors()
				u, err := d.connect(t.Context(), to)
				if !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
				if got := dialResult(err); got != tc.result {
					t.Errorf("classed as %v, want %v", got, tc.result)
				}
				if u != nil || descriptors() != before {
					t.Errorf("a failed dial left %v, %d descriptors", u, descriptors()-before)
				}
				if len(d.own.m) != 0 {
					t.Errorf("%v is still called our own", d.own.m)
				}
			})
		}
	}
}

// TestDialCanceled ends a dial that would last for minutes.
func TestDialCanceled(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		to := fullListener(t, id.Destination.Addr())
		d := newDialer()
		d.timeout = time.Hour
		for _, when := range []string{"before", "during"} {
			ctx, cancel := context.WithCancel(t.Context())
			if when == "before" {
				cancel()
			}
			failed := make(chan error, 1)
			go func() { _, err := d.connect(ctx, to); failed <- err }()
			if when == "during" {
				eventually(t, "the dial to begin", func() bool {
					d.own.mu.Lock()
					defer d.own.mu.Unlock()
					return len(d.own.m) == 1
				})
			}
			cancel()
			if err := await(t, "the canceled dial", failed); !errors.Is(err, context.Canceled) {
				t.Errorf("canceled %s: %v", when, err)
			}
		}
	})
}

// TestDialZone keeps the zone of a server that the operator named.
func TestDialZone(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]uint32{
		"[fe80::1%lo]:53": uint32(lo.Index), "[fe80::1%7]:53": 7, "[fe80::1%tungate-none]:53": 0, "[fe80::1]:53": 0,
	} {
		if got := sockaddr(netip.MustParseAddrPort(addr)).(*unix.SockaddrInet6); got.ZoneId != want || got.Port != 53 {
			t.Errorf("%s: zone %d, port %d; want zone %d", addr, got.ZoneId, got.Port, want)
		}
	}
}

// TestDialResults classes what cannot be provoked here.
func TestDialResults(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want DialResult
	}{
		{nil, DialOK},
		{unix.EHOSTUNREACH, DialUnreachable},
		{unix.EHOSTDOWN, DialUnreachable},
		{unix.ENETDOWN, DialUnreachable},
		{unix.EADDRNOTAVAIL, DialNoPorts},
		{unix.ENFILE, DialNoFiles},
		{fmt.Errorf("socket: %w", unix.EMFILE), DialNoFiles},
		{unix.EACCES, DialError},
		{context.Canceled, DialError},
	} {
		if got := dialResult(tc.err); got != tc.want {
			t.Errorf("%v is classed as %v, want %v", tc.err, got, tc.want)
		}
	}
	seen := map[string]bool{"": true, "unknown": true}
	for r := range NumDialResults {
		if seen[r.String()] {
			t.Errorf("result %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
	if NumDialResults.String() != "unknown" {
		t.Errorf("the first number past the results is %q", NumDialResults)
	}
}

// unmarked runs f on a thread that may not mark sockets and that ends with f. Since
// Linux 5.17 CAP_NET_RAW is enough.
func unmarked(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		data[0].Effective &^= 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
		if err = errors.Join(err, unix.Capset(&hdr, &data[0])); err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// TestMarkRefused: New says what to do where sockets may not be marked.
func TestMarkRefused(t *testing.T) {
	before := descriptors()
	err := unmarked(func() error { _, err := New(Options{Mark: 1}, nil); return err })
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("%v, want EPERM and the capability's name", err)
	}
	// New's probe is an IPv4 socket; both kinds must carry the mark.
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			d := newDialer()
			d.mark = 1
			err := unmarked(func() error { _, err := d.socket(id.Destination, typ); return err })
			if !errors.Is(err, unix.EPERM) {
				t.Errorf("socket type %d: %v, want EPERM", typ, err)
			}
		}
	})
	if left := descriptors() - before; left != 0 {
		t.Errorf("%d descriptors left", left)
	}
}

func TestNoSuchInterface(t *testing.T) {
	_, err := New(Options{Interface: "tungate-none"}, nil)
	if !errors.Is(err, unix.ENODEV) && (err == nil || !strings.Contains(err.Error(), "tungate-none")) {
		t.Errorf("%v, want the interface's name", err)
	}
}

// childJob names what a test binary started by a test does instead of testing.
const childJob = "TUNGATE_PROXY_CHILD"

func runChild(job string) int {
	if job != "echo" {
		return 2
	}
	if err := echoForever(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKeepalive: the kernel probes upstream connections as the options say.
func TestKeepalive(t *testing.T) {
	for name, tc := range map[string]struct {
		o    Options
		want [4]int // SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT
	}{
		"defaults": {Options{}, [4]int{1, 60, 15, 9}},
		"set":      {Options{KeepaliveIdle: 90 * time.Second, KeepaliveInterval: time.Millisecond, KeepaliveCount: 3}, [4]int{1, 90, 1, 3}},
		"off":      {Options{KeepaliveIdle: -1, KeepaliveInterval: time.Second}, [4]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
				fd, err := newDirect(tc.o.withDefaults(), nil).dial.rawSocket(id.Destination, unix.SOCK_STREAM)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = unix.Close(fd) }()
				var got [4]int
				got[0], _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
				if got[0] != 0 {
					for i, o := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
						got[1+i], _ = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, o)
					}
				}
				if got != tc.want {
					t.Errorf("%v, want %v", got, tc.want)
				}
			})
		})
	}
}
