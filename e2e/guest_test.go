package e2e

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/tungate/tungate/internal/testutil"
)

// The gateway's own addresses and the pool in examples/tap.yaml.
var (
	segmentV4 = netip.MustParsePrefix("198.18.0.1/15")
	segmentV6 = netip.MustParsePrefix("fd00:18::1/64")
	poolFirst = netip.MustParseAddr("198.18.0.100")
	poolLast  = netip.MustParseAddr("198.18.0.199")
)

// What guests carry.
const (
	downSize = 32 << 20
	upSize   = 8 << 20
)

// segment is a lab whose gateway serves guests: its TAP device is one port of a
// bridge, and each of them has another.
type segment struct {
	lab     *testutil.Lab
	outside outside
	gw      *running
	ports   int
}

// newSegment starts a gateway with a TAP device of this MTU.
func newSegment(t *testing.T, mtu int) *segment {
	t.Helper()
	lab := newLab(t)
	// No kernel but the guests' has a place on the bridge.
	must(t, lab.Client.Sysctl("ipv6/conf/default/disable_ipv6", "1"))
	must(t, lab.Client.IP("link add br0 type bridge mcast_snooping 0", "link set br0 up"))
	// It stays there when the gateway ends.
	must(t, lab.Client.IP("tuntap add dev tap0 mode tap multi_queue"))
	s := &segment{lab: lab, outside: newOutside(t, lab)}
	s.plug(t, "tap0")
	s.startGateway(t, mtu)
	return s
}

// startGateway runs the gateway on the bridge's first port.
func (s *segment) startGateway(t *testing.T, mtu int) {
	t.Helper()
	dns := netip.AddrPortFrom(segmentV4.Addr(), 53).String()
	s.gw = launch(t, s.lab, "tap.yaml", fields{
		"device.attach":       true,
		"device.mtu":          mtu,
		"lan.addresses":       []string{segmentV4.String(), segmentV6.String()},
		"lan.dhcp.dns":        []string{segmentV4.Addr().String()},
		"lan.dhcp.lease_time": "10m",
		"proxy.forward":       map[string]string{dns: netip.AddrPortFrom(testutil.ServerV4, 53).String()},
		// What deviceEnv sets for a guest that is on a TAP by itself.
		"lan.mac": nil, "lan.proxy": nil, "lan.on_link": nil,
	})
}

// nextPort names a device of the bridge that is still to be made.
func (s *segment) nextPort() string {
	s.ports++
	return "port" + strconv.Itoa(s.ports)
}

// plug makes a device a port of the bridge.
func (s *segment) plug(t *testing.T, port string) {
	t.Helper()
	must(t, s.lab.Client.IP("link set "+port+" master br0", "link set "+port+" up"))
}

// outside is what guests find beyond the gateway: a file at both families'
// addresses, which answer an upload with its sha256, and a name for them.
type outside struct {
	sum string // of the file
}

func newOutside(t *testing.T, lab *testutil.Lab) outside {
	t.Helper()
	path, sum := makeFile(t, 1, downSize)
	for _, f := range families() {
		serveHTTP(t, lab.Server, netip.AddrPortFrom(f.server, 80), fileServer(path))
	}
	serveDNS(t, lab.Server, netip.AddrPortFrom(testutil.ServerV4, 53), testutil.ServerV4, testutil.ServerV6)
	return outside{sum}
}

// download fetches the file in the machine.
func (o outside) download(run machine, host string) error {
	out, err := run("wget -q -O - http://" + host + "/ | sha256sum")
	if err == nil && strings.TrimSpace(out) != o.sum+"  -" {
		err = fmt.Errorf("sha256sum said %q, want %s", out, o.sum)
	}
	return err
}

// upload sends a file of the machine's own. wget wants text.
func (o outside) upload(run machine, host string) error {
	out, err := run(fmt.Sprintf("head -c %d /dev/urandom | base64 >/file; sha256sum </file; "+
		"wget -q -O - --post-file /file http://%s/", upSize*3/4, host))
	if sums := strings.Fields(out); err == nil && (len(sums) != 3 || sums[0] != sums[2]) {
		err = fmt.Errorf("sha256sum and the server said %q", out)
	}
	return err
}

// machineKinds are the machines that may stand on a segment.
var machineKinds = []struct {
	name string
	join func(t *testing.T, s *segment, mac string) machine
}{
	{"namespace", kernelMachine},
	{"virtio-net", virtioMachine},
	{"vmxnet3", vmxnetMachine},
}

// TestGuest lets a machine of each kind come up by DHCP and router advertisements
// alone and carry files both ways, in superframes.
func TestGuest(t *testing.T) {
	const (
		mtu   = 1400 // not what a network card has by itself
		share = 0.8  // of the bytes, in superframes
	)
	for _, kind := range machineKinds {
		t.Run(kind.name, func(t *testing.T) {
			s := newSegment(t, mtu)
			m := kind.join(t, s, "02:00:00:00:00:0a")
			lease, err := m.up()
			must(t, err)
			wantLease(t, lease, mtu)
			wantAutoconf(t, m, mtu)
			m.sh(t, fmt.Sprintf("ping -c 1 -W 5 %s && ping -c 1 -W 5 %s", segmentV4.Addr(), segmentV6.Addr()))

			t.Run("name", func(t *testing.T) { must(t, s.outside.download(m, dnsName)) })
			eachFamily(t, func(t *testing.T, f family) {
				for _, down := range []bool{true, false} {
					t.Run(fmt.Sprintf("down=%v", down), func(t *testing.T) {
						before := s.gw.metrics(t)
						if down {
							must(t, s.outside.download(m, hostPart(f.server)))
						} else {
							must(t, s.outside.upload(m, hostPart(f.server)))
						}
						got := s.gw.metrics(t).Sub(before).SuperframeShare(down)
						t.Logf("%.1f %% of the bytes in superframes", 100*got)
						if superframes(f) != (got >= share) {
							t.Errorf("%.1f %% of the bytes in superframes, want %.0f %%: %v", 100*got, 100*share, superframes(f))
						}
					})
				}
			})
			wantNoDrops(t, s.gw.metrics(t))
		})
	}
}

// wantNoDrops wants no frame dropped but a guest's multicast, which is for others.
func wantNoDrops(t *testing.T, all testutil.Series) {
	t.Helper()
	for _, name := range []string{"tungate_lan_frames_dropped_total", "tungate_device_frames_dropped_total"} {
		if all.Sum(name) == all.Sum(name, `reason="multicast"`) {
			continue
		}
		for series, n := range all {
			if strings.HasPrefix(series, name) && n != 0 {
				t.Errorf("%s %v", series, n)
			}
		}
	}
}

// hostPart is an address as a URL has it.
func hostPart(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// wantLease wants what the config says in a lease of the pool.
func wantLease(t *testing.T, lease string, mtu int) {
	t.Helper()
	want := fmt.Sprintf("/15 via %s dns %[1]s mtu %d lease 600", segmentV4.Addr(), mtu)
	addr, err := netip.ParseAddr(strings.TrimSuffix(lease, want))
	if err != nil || addr.Less(poolFirst) || poolLast.Less(addr) {
		t.Errorf("lease %q, want an address of %s to %s%s", lease, poolFirst, poolLast, want)
	}
}

// wantAutoconf wants an address, a default route and an MTU by router
// advertisement.
func wantAutoconf(t *testing.T, m machine, mtu int) {
	t.Helper()
	// RFC 4291, appendix A: the MAC around ff:fe, one bit turned.
	if out := m.sh(t, "ip -6 addr show dev eth0 scope global"); !strings.Contains(out, "fd00:18::ff:fe00:a/64") {
		t.Errorf("no address of %s: %s", segmentV6.Masked(), out)
	}
	if out := m.sh(t, "ip -6 route show default"); !strings.Contains(out, "default via fe80::") {
		t.Errorf("no default route: %s", out)
	}
	if out := m.sh(t, "cat /proc/sys/net/ipv6/conf/eth0/mtu"); out != strconv.Itoa(mtu) {
		t.Errorf("MTU %s by router advertisement, want %d", out, mtu)
	}
}

// TestGuestsTogether has a machine of each kind on one segment, all at work at once,
// before and after a restart of the gateway, of which nobody tells them.
func TestGuestsTogether(t *testing.T) {
	const mtu = 1500
	s := newSegment(t, mtu)
	machines := make([]machine, len(machineKinds))
	for i, kind := range machineKinds {
		machines[i] = kind.join(t, s, fmt.Sprintf("02:00:00:00:00:%02x", 10+i))
	}
	leases := make([]string, len(machines))
	together(t, len(machines), func(i int) (err error) {
		leases[i], err = machines[i].up()
		return err
	})
	for i, lease := range leases {
		wantLease(t, lease, mtu)
		for _, other := range leases[:i] {
			if lease == other {
				t.Errorf("two have the lease %s", lease)
			}
		}
	}
	work := func() {
		t.Helper()
		together(t, len(machines), func(i int) error {
			for _, f := range families() {
				if err := s.outside.download(machines[i], hostPart(f.server)); err != nil {
					return err
				}
				if err := s.outside.upload(machines[i], hostPart(f.server)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	work()
	// They also reach each other, past the gateway.
	other, _, _ := strings.Cut(leases[0], "/")
	machines[1].sh(t, "ping -c 1 -W 5 "+other)

	must(t, s.gw.Stop(long))
	s.startGateway(t, mtu)
	// It has withdrawn their IPv6 route, and advertises itself again.
	together(t, len(machines), func(i int) error {
		_, err := machines[i]("/routed")
		return err
	})
	work()
}
