package testutil

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The lab's addresses. All are set aside for tests and documentation (RFC 2544,
// RFC 5737, RFC 4193).
var (
	ClientV4  = netip.MustParseAddr("192.0.2.1")        // the client namespace's own, on up0
	ClientV6  = netip.MustParseAddr("fd00:2::1")        //
	RouterV4  = netip.MustParseAddr("192.0.2.2")        // the server namespace's, on up0
	RouterV6  = netip.MustParseAddr("fd00:2::2")        //
	ServerV4  = netip.MustParseAddr("203.0.113.1")      // where the servers listen
	ServerV6  = netip.MustParseAddr("fd00:113::1")      //
	TunV4     = netip.MustParseAddr("198.18.0.1")       // the device's, in examples/*.yaml
	TunV6     = netip.MustParseAddr("fd00:18::1")       //
	LocalNet4 = netip.MustParsePrefix("203.0.113.0/24") // every address of it is the server namespace's
	LocalNet6 = netip.MustParsePrefix("fd00:113::/64")
	SilentV4  = netip.MustParseAddr("198.51.100.1") // the server namespace drops what is sent here
	SilentV6  = netip.MustParseAddr("fd00:51::1")   //
)

// TunName is the device of examples/direct.yaml and examples/echo.yaml.
const TunName = "tun0"

// tunTable is the routing table whose default route is the device.
const tunTable = "100"

// CongestionControl is what the kernel's ends of every lab use. With the bbr that
// some machines default to, every gateway measures about 30 % lower.
const CongestionControl = "cubic"

// Lab is a client and a server namespace joined by a veth pair named up0 on both
// sides.
type Lab struct {
	Client, Server *Namespace
	// ViaV4 and ViaV6 are the gateway's addresses on a TAP; on a TUN, where
	// nobody has one, they are zero.
	ViaV4, ViaV6 netip.Addr
}

// NewLab makes a lab. Close it.
func NewLab() (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("testutil: network namespaces need root; run it as root")
	}
	if err := allowCongestionControl(CongestionControl); err != nil {
		return nil, err
	}
	lab := &Lab{}
	var err error
	if lab.Server, err = NewNamespace("server"); err == nil {
		lab.Client, err = NewNamespace("client")
	}
	if err == nil {
		err = lab.wire()
	}
	if err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return lab, nil
}

// Close removes both namespaces.
func (l *Lab) Close() error {
	var errs []error
	for _, n := range []*Namespace{l.Client, l.Server} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// wire joins the two namespaces, addresses them and checks their settings.
func (l *Lab) wire() error {
	for _, n := range []*Namespace{l.Client, l.Server} {
		if err := Tune(n); err != nil {
			return err
		}
	}
	err := l.Client.IP(fmt.Sprintf("link add up0 type veth peer name up0 netns %s", l.Server.Name))
	if err != nil {
		return err
	}
	err = l.Client.IP(
		fmt.Sprintf("addr add %s/24 dev up0", ClientV4),
		fmt.Sprintf("addr add %s/64 dev up0 nodad", ClientV6),
		"link set up0 up")
	if err != nil {
		return err
	}
	err = l.Server.IP(
		fmt.Sprintf("addr add %s/24 dev up0", RouterV4),
		fmt.Sprintf("addr add %s/64 dev up0 nodad", RouterV6),
		fmt.Sprintf("addr add %s/32 dev lo", ServerV4),
		fmt.Sprintf("addr add %s/128 dev lo", ServerV6),
		fmt.Sprintf("route add local %s dev lo", LocalNet4),
		fmt.Sprintf("-6 route add local %s dev lo", LocalNet6),
		fmt.Sprintf("route add blackhole %s", SilentV4),
		fmt.Sprintf("-6 route add blackhole %s", SilentV6),
		"link set up0 up",
		fmt.Sprintf("route add default via %s", ClientV4),
		fmt.Sprintf("-6 route add default via %s", ClientV6))
	if err != nil {
		return err
	}
	err = l.Client.IP(
		fmt.Sprintf("route add default via %s", RouterV4),
		fmt.Sprintf("-6 route add default via %s", RouterV6))
	if err != nil {
		return err
	}
	return l.awaitLink()
}

// awaitLink waits until both sides answer. IPv6 addresses come up when the kernel
// has worked off the carrier's event, which it may leave for a second; packets sent
// before then would be lost. A question for the link makes it look at once (since
// Linux 6.8, rtnl_getlink).
func (l *Lab) awaitLink() error {
	if err := errors.Join(l.Server.IP("link show up0"), l.Client.IP("link show up0")); err != nil {
		return err
	}
	for _, to := range []netip.Addr{RouterV4, RouterV6} {
		err := Poll(linkTimeout, func() error {
			_, err := l.Client.Output("ping", "-n", "-c", "1", "-W", "0.2", to.String())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// linkTimeout bounds the wait for a fresh veth pair to carry packets.
const linkTimeout = 5 * time.Second

// RouteIntoDevice sends everything that does not carry the gateway's mark, nor an
// upstream address already, into the device. The rules survive the device; the
// routes go with it, and a second call puts them back.
func (l *Lab) RouteIntoDevice() error {
	lines := []string{}
	for _, f := range []struct {
		flag, from string
		via        netip.Addr
	}{{"-4", ClientV4.String(), l.ViaV4}, {"-6", ClientV6.String(), l.ViaV6}} {
		to := "default dev " + TunName
		if f.via.IsValid() {
			to = "default via " + f.via.String() + " dev " + TunName
		}
		lines = append(lines, f.flag+" route replace "+to+" table "+tunTable)
		have, err := l.Client.Output("ip", f.flag, "rule", "show")
		if err != nil {
			return err
		}
		if !strings.Contains(have, "lookup "+tunTable) {
			lines = append(lines,
				f.flag+" rule add priority 1000 from "+f.from+" lookup main",
				f.flag+" rule add priority 1001 not fwmark 1 lookup "+tunTable)
		}
	}
	return l.Client.IP(lines...)
}

// Tune sets what every namespace of a lab needs and checks that it took.
func Tune(n *Namespace) error {
	for _, s := range [][2]string{
		{"ipv4/tcp_congestion_control", CongestionControl},
		{"ipv4/ip_local_port_range", "10000 65000"},
		{"ipv4/conf/all/rp_filter", "0"}, // the way back differs from the way there
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv6/conf/default/accept_dad", "0"}, // nobody else is there
		{"ipv4/ping_group_range", "0 2147483647"},
	} {
		if err := n.Sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	got, err := n.SocketCongestionControl()
	if err == nil && got != CongestionControl {
		err = fmt.Errorf("%s: sockets get %s instead of %s", n.Name, got, CongestionControl)
	}
	return err
}

// SocketCongestionControl is what a fresh TCP socket of the namespace uses.
func (n *Namespace) SocketCongestionControl() (string, error) {
	var name string
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		name, err = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		return err
	})
	return strings.TrimRight(name, "\x00"), err
}

// allowCongestionControl adds name to the host's list of those a namespace may
// choose: without it a namespace gets EPERM, and silently keeps its own.
func allowCongestionControl(name string) error {
	const path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	allowed := strings.Fields(string(b))
	if slices.Contains(allowed, name) {
		return nil
	}
	return os.WriteFile(path, []byte(strings.Join(append(allowed, name), " ")), 0o644)
}
