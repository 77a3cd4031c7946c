package lan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/offload"
)

// within bounds what a kernel or a client takes; a busy machine may take a while.
const within = 20 * time.Second

// tap is a gateway at one end of a TAP device whose other end is a kernel's. It
// answers pings to every address.
type tap struct {
	*testing.T
	l       *LAN
	file    *os.File
	ended   chan struct{}
	partial atomic.Int64 // DHCP messages that came with a partial checksum
	replies chan netip.Addr
}

// newTap makes a TAP device called eth0 in a namespace and serves it to the end of
// the test. The kernel leaves checksums to us, as it does for a virtual machine.
func newTap(t *testing.T, n *testutil.Namespace, change func(*Options)) *tap {
	t.Helper()
	g := &tap{T: t, ended: make(chan struct{}), replies: make(chan netip.Addr, 16)}
	must(t, n.Do(func() error { return g.open("eth0") }))
	o := options()
	change(&o)
	var err error
	if g.l, err = New(o, time.Now()); err != nil {
		t.Fatal(err)
	}
	go g.serve()
	t.Cleanup(func() {
		g.file.Close()
		<-g.ended
	})
	return g
}

func (g *tap) open(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	g.file = os.NewFile(uintptr(fd), name)
	return nil
}

// serve is the gateway's loop; it ends when the file is closed.
func (g *tap) serve() {
	defer close(g.ended)
	buf := make([]byte, offload.HdrLen+65535+HdrLen)
	for {
		_ = g.file.SetReadDeadline(g.l.Next())
		n, err := g.file.Read(buf)
		now := time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			g.l.Tick(now, g.send)
			continue
		case err != nil:
			return
		}
		var h offload.Hdr
		h.Decode(buf)
		f := Frame{Data: buf[offload.HdrLen:n], Verified: h.Flags != 0}
		if h.Flags&offload.FlagNeedsCsum != 0 && f.Data[13] == 0 && f.Data[23] == offload.ProtoUDP && dstPort(f.Data) == dhcpServerPort {
			g.partial.Add(1)
		}
		if g.l.Input(f, now, g.send) == Deliver {
			g.stack(f.Data)
		}
	}
}

func (g *tap) send(frame []byte) {
	_, err := g.file.Write(append(make([]byte, offload.HdrLen), frame...))
	// EIO: the link is down, as it is before the test sets it up.
	if err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EIO) {
		g.Errorf("write: %v", err)
	}
}

// stack is the smallest IP stack: it answers echo requests to the station that
// Lookup gives, and notes echo replies.
func (g *tap) stack(frame []byte) {
	frame = bytes.Clone(frame)
	p := frame[HdrLen:]
	var v offload.Packet
	if offload.Parse(&v, p, len(p)) != offload.OK || v.L4Len == 0 || v.Proto != offload.ProtoICMP && v.Proto != offload.ProtoICMPv6 {
		return
	}
	icmp := p[v.L3Len:v.Len]
	switch icmp[0] {
	case byte(header.ICMPv4EchoReply), byte(header.ICMPv6EchoReply):
		g.replies <- v.Src
	case byte(header.ICMPv4Echo), byte(header.ICMPv6EchoRequest):
		if to, ok := g.l.Lookup(v.Src); ok {
			g.send(echo(to, v.Dst, v.Src, false, icmp[4:]))
		}
	}
}

// echo builds a ping or its answer.
func echo(to MAC, from, dst netip.Addr, request bool, body []byte) []byte {
	if from.Is6() {
		typ := header.ICMPv6EchoReply
		if request {
			typ = header.ICMPv6EchoRequest
		}
		f := icmpFrame(ip6{to, gateway, from, dst, 64}, append([]byte{byte(typ), 0, 0, 0}, body...))
		return f
	}
	typ := header.ICMPv4EchoReply
	if request {
		typ = header.ICMPv4Echo
	}
	icmp := append([]byte{byte(typ), 0, 0, 0}, body...)
	binary.BigEndian.PutUint16(icmp[2:], ^naiveSum(icmp))
	b := make([]byte, header.IPv4MinimumSize)
	h := header.IPv4(b)
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(b) + len(icmp)), TTL: 64, Protocol: 1, SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: tcpip.AddrFrom4(dst.As4())})
	h.SetChecksum(^h.CalculateChecksum())
	return ethernet(to, gateway, TypeIPv4, append(bytes.Clone(b), icmp...))
}

// ping is a Pending that pings.
type ping struct {
	g        *tap
	from, to netip.Addr
}

func (p ping) Send(to MAC) { p.g.send(echo(to, p.from, p.to, true, []byte{0, 1, 0, 1})) }
func (p ping) Drop()       { p.g.Errorf("nobody is at %v", p.to) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls for what a kernel does in its own time.
func eventually(t testing.TB, cond func() error) {
	t.Helper()
	must(t, testutil.Poll(within, cond))
}

func namespace(t *testing.T, label string) *testutil.Namespace {
	t.Helper()
	n, err := testutil.NewNamespace(label)
	must(t, err)
	t.Cleanup(func() {
		_, _ = n.KillAll()
		must(t, n.Close())
	})
	return n
}

// pings checks that a guest reaches addresses.
func pings(t testing.TB, n *testutil.Namespace, args ...string) {
	t.Helper()
	for _, a := range args {
		eventually(t, func() error {
			_, err := n.Output("ping", append([]string{"-n", "-c", "1", "-W", "1"}, strings.Fields(a)...)...)
			return err
		})
	}
}

// dhcpScript configures the interface by what a server said, and notes it.
const dhcpScript = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
ip link set "$interface" mtu "$mtu"
set -- $staticroutes
while [ $# -gt 1 ]; do
  ip route replace "$1" via "$2" dev "$interface"
  shift 2
done
[ -n "$staticroutes" ] || ip route replace default via "$router" dev "$interface"
echo "$ip/$mask via $router dns $dns mtu $mtu lease $lease" > "$LEASE_FILE"
`

// udhcpc runs busybox's DHCP client in a namespace until the test's end, and
// returns it and what its lease says.
func udhcpc(t *testing.T, n *testutil.Namespace, args ...string) (client *testutil.Process, lease string) {
	t.Helper()
	dir := t.TempDir()
	script, file := filepath.Join(dir, "script"), filepath.Join(dir, "lease")
	must(t, os.WriteFile(script, []byte(dhcpScript), 0o700))
	cmd := exec.Command("busybox", append([]string{"udhcpc", "-f", "-i", "eth0", "-t", "20", "-T", "1", "-s", script}, args...)...)
	cmd.Env = append(os.Environ(), "LEASE_FILE="+file, "PATH="+os.Getenv("PATH")+":/sbin:/usr/sbin")
	p, err := n.Start(cmd)
	must(t, err)
	t.Cleanup(p.Kill)
	eventually(t, func() error {
		b, err := os.ReadFile(file)
		if err == nil && len(b) == 0 {
			err = errors.New("lease is being written")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, p.Stderr)
		}
		lease = strings.TrimSpace(string(b))
		return err
	})
	return p, lease
}

// lab is what the gateway of the tests with kernels offers.
func lab(o *Options) {
	o.Proxy, o.ProxyPrefixes = ProxyPrefixes, []netip.Prefix{network("203.0.113.0/24"), network("fd00:113::/64")}
	o.RA.On = true
	o.DHCP = DHCPOptions{On: true, DNS: []netip.Addr{ip("198.18.0.53")}, Routes: []Route{{Prefix: network("198.51.100.0/24")}}}
}

// TestKernelGuest lets a Linux kernel that knows nothing come up on a TAP device by
// DHCP and router advertisements alone, and use every service there is.
func TestKernelGuest(t *testing.T) {
	n := namespace(t, "guest")
	g := newTap(t, n, lab)
	must(t, n.IP("link set eth0 address 02:00:00:00:00:0a", "link set eth0 up"))
	client, lease := udhcpc(t, n, "-R", "-O", "staticroutes")
	addr := netip.MustParsePrefix(strings.Fields(lease)[0]).Addr()
	if want := " via 198.18.0.1 dns 198.18.0.53 mtu 1400 lease 3600"; !strings.HasSuffix(lease, want) {
		t.Errorf("lease %q, want an address%s", lease, want)
	}

	t.Run("IPv4", func(t *testing.T) {
		must(t, n.IP("route add 203.0.113.0/24 dev eth0")) // on its link, as it believes
		pings(t, n, "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.7")
		if out, err := n.Output("busybox", "arping", "-D", "-c", "2", "-I", "eth0", "198.18.0.1"); err == nil {
			t.Errorf("the gateway's address is free: %s", out)
		}
		if out, err := n.Output("busybox", "arping", "-D", "-c", "2", "-I", "eth0", "203.0.113.9"); err != nil {
			t.Errorf("a probe of another address was answered: %s", out)
		}
		g.l.Resolve(addr, ping{g, gateway4, addr}, time.Now(), g.send)
		wantReply(t, g, addr)
	})

	t.Run("IPv6", func(t *testing.T) {
		eventually(t, func() error { return hasAddress(n, "fd00:18::ff:fe00:a/64") })
		must(t, n.IP("-6 route add fd00:113::/64 dev eth0"))
		pings(t, n, "fd00:18::1", "fe80::ff:fe00:1%eth0", "2001:db8::1", "fd00:113::7")
		mtu, err := n.ReadSysctl("ipv6/conf/eth0/mtu")
		if err != nil || mtu != "1400" {
			t.Errorf("MTU by advertisement is %s, %v", mtu, err)
		}
		out, err := n.Output("ip", "-6", "neigh", "show", "fe80::ff:fe00:1", "dev", "eth0")
		if err != nil || !strings.Contains(out, "lladdr 02:00:00:00:00:01 router") {
			t.Errorf("the kernel knows the gateway as %q, %v", out, err)
		}
	})

	t.Run("duplicate", func(t *testing.T) {
		must(t, n.IP("-6 addr add fd00:18::1/64 dev eth0"))
		eventually(t, func() error {
			out, err := n.Output("ip", "-6", "addr", "show", "dev", "eth0")
			if err == nil && !strings.Contains(out, "fd00:18::1/64 scope global dadfailed") {
				err = fmt.Errorf("the gateway's address was taken: %s", out)
			}
			return err
		})
		must(t, n.IP("-6 addr del fd00:18::1/64 dev eth0"))
	})

	t.Run("resolution", func(t *testing.T) { // the gateway speaks first
		must(t, n.IP("addr add 198.18.0.200/24 dev eth0", "addr add fd00:18::200/64 dev eth0 nodad"))
		for from, to := range map[netip.Addr]netip.Addr{gateway4: ip("198.18.0.200"), gateway6: ip("fd00:18::200")} {
			if at, ok := g.l.Lookup(to); ok {
				t.Errorf("%v is known at %v already", to, at)
			}
			g.l.Resolve(to, ping{g, from, to}, time.Now(), g.send)
			_ = g.file.SetReadDeadline(time.Now())
			wantReply(t, g, to)
		}
	})

	t.Run("renewal", func(t *testing.T) {
		before := g.l.Stats().Events[EventDHCPAck]
		must(t, client.Signal(unix.SIGUSR1))
		eventually(t, func() error {
			if g.l.Stats().Events[EventDHCPAck] == before {
				return errors.New("not renewed")
			}
			return nil
		})
		if g.partial.Load() == 0 {
			t.Error("the renewal came with a whole checksum; this test is to see a partial one")
		}
	})

	t.Run("release", func(t *testing.T) {
		must(t, client.Stop(within))
		eventually(t, func() error {
			if s := g.l.Stats(); s.Leases != 0 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	})

	s := g.l.Stats()
	for _, r := range []DropReason{DropARP, DropNDP, DropChecksum, DropHopLimit, DropDHCP, DropSpoofed, DropSourceMAC, DropTruncated} {
		if s.Drops[r] != 0 {
			t.Errorf("%d frames of a kernel were dropped for %s", s.Drops[r], r)
		}
	}
}

func wantReply(t *testing.T, g *tap, from netip.Addr) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		select {
		case a := <-g.replies:
			if a == from {
				return
			}
		case <-deadline.C:
			t.Fatalf("no reply of %v; %+v", from, g.l.Stats())
		}
	}
}

// hasAddress reports whether an address is there and proven to be alone.
func hasAddress(n *testutil.Namespace, addr string) error {
	out, err := n.Output("ip", "-6", "addr", "show", "dev", "eth0", "-tentative")
	if err == nil && !strings.Contains(out, addr) {
		err = fmt.Errorf("no %s in %s", addr, out)
	}
	return err
}

// TestKernelGuests puts two kernels on one TAP device, behind a bridge: each gets
// its own address, neither gets the other's while it lives, and a dead one's is
// taken over.
func TestKernelGuests(t *testing.T) {
	sw, a, b := namespace(t, "bridge"), namespace(t, "a"), namespace(t, "b")
	g := newTap(t, sw, lab)
	must(t, sw.IP("link add br0 type bridge", "link set eth0 master br0", "link set eth0 up", "link set br0 up"))
	for i, n := range []*testutil.Namespace{a, b} {
		must(t, n.Sysctl("ipv4/conf/all/arp_notify", "0"))
		must(t, sw.IP(
			fmt.Sprintf("link add port%d type veth peer name eth0 address 02:00:00:00:00:0%x netns %s", i, 10+i, n.Name),
			fmt.Sprintf("link set port%d master br0", i), fmt.Sprintf("link set port%d up", i)))
		must(t, n.IP("link set eth0 up"))
	}
	_, leaseA := udhcpc(t, a)
	_, leaseB := udhcpc(t, b)
	addrA, addrB := strings.Split(leaseA, "/")[0], strings.Split(leaseB, "/")[0]
	if addrA == addrB {
		t.Fatalf("both got %s", addrA)
	}
	pings(t, a, "192.0.2.1", addrB)
	pings(t, b, "192.0.2.1", addrA)
	if at, ok := g.l.Lookup(ip(addrA)); !ok || at != guestA {
		t.Errorf("%s is at %v", addrA, at)
	}

	// B takes A's address as well.
	must(t, b.IP("addr add "+addrA+"/32 dev eth0"))
	if out, err := b.Output("ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", "-I", addrA, "192.0.2.1"); err == nil {
		t.Errorf("B speaks with A's address: %s", out)
	}
	pings(t, a, "192.0.2.1")
	if s := g.l.Stats(); s.Drops[DropSpoofed] < 5 || s.Events[EventMoveRefused] == 0 || s.Events[EventMoved] != 0 {
		t.Errorf("%+v", s)
	}

	must(t, a.IP("link set eth0 down"))
	pings(t, b, "-I "+addrA+" 192.0.2.1")
	if at, ok := g.l.Lookup(ip(addrA)); !ok || at != guestB {
		t.Errorf("%s is at %v, want the other's", addrA, at)
	}
}
