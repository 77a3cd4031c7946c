package tundev_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

const within = 5 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// namespace returns a network namespace of the test's own.
func namespace(t *testing.T) *testutil.Namespace {
	t.Helper()
	ns, err := testutil.NewNamespace("tundev")
	if err != nil {
		t.Fatalf("a network namespace is needed, so run the tests as root: %v", err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// create makes a device in ns and closes it with the test.
func create(t *testing.T, ns *testutil.Namespace, o tundev.Options) *tundev.Device {
	t.Helper()
	var d *tundev.Device
	if err := ns.Do(func() (err error) { d, err = tundev.Create(o); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

var options = tundev.Options{
	Name: "tun0", MTU: 1400,
	Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("fd00:18::1/64")},
	Routes:    []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("fd00:113::/64")},
}

// iov covers b with segments of the given lengths and one for the rest.
func iov(b []byte, lengths ...int) []unix.Iovec {
	var v []unix.Iovec
	for _, n := range append(lengths, len(b)) {
		n = min(n, len(b))
		seg := unix.Iovec{Base: &b[0]}
		seg.SetLen(n)
		v = append(v, seg)
		if b = b[n:]; len(b) == 0 {
			break
		}
	}
	return v
}

// TestCreate configures the interface as asked, and leaves nothing behind.
func TestCreate(t *testing.T) {
	ns := namespace(t)
	d := create(t, ns, options)
	if d.Name() != "tun0" || d.MTU() != 1400 || len(d.Queues()) != runtime.GOMAXPROCS(0) || len(d.Notes()) != 0 {
		t.Errorf("%s, MTU %d, %d queues, notes %q", d.Name(), d.MTU(), len(d.Queues()), d.Notes())
	}
	if f := d.Features(); !f.Checksum || !f.TSO4 || !f.TSO6 {
		t.Errorf("features %+v on a kernel that has them", f)
	}
	err := ns.Do(func() error {
		l, err := netlink.LinkByName("tun0")
		if err != nil {
			return err
		}
		if l.Attrs().MTU != 1400 || l.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("interface %+v", l.Attrs())
		}
		for _, want := range []string{"198.18.0.1/15", "fd00:18::1/64"} {
			if !hasAddress(t, l, want) {
				t.Errorf("no address %s", want)
			}
		}
		for _, to := range []string{"203.0.113.9", "fd00:113::9"} {
			r, err := netlink.RouteGet(net.ParseIP(to))
			if err != nil || r[0].LinkIndex != l.Attrs().Index {
				t.Errorf("route to %s: %v, %v", to, r, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error { _, err := netlink.LinkByName("tun0"); return err })
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); !gone {
		t.Errorf("after Close the interface is still there: %v", err)
	}
}

func hasAddress(t *testing.T, l netlink.Link, want string) bool {
	t.Helper()
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IPNet.String() == want {
			return true
		}
	}
	return false
}

// TestFrames reads what the kernel sends and lets it receive what is written.
func TestFrames(t *testing.T) {
	ns := namespace(t)
	d := create(t, ns, options)
	pc, err := ns.ListenPacket("198.18.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	peer := &net.UDPAddr{IP: net.ParseIP("203.0.113.9"), Port: 7001}
	if _, err := pc.WriteTo([]byte("out"), peer); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, offload.HdrLen+65535)
	p, n := readUDP(t, d.Queues()[0], b)
	if string(b[offload.HdrLen+p.L3Len+p.L4Len:n]) != "out" {
		t.Errorf("read %q", b[:n])
	}
	// The same datagram with its ends exchanged is the answer: neither sum
	// changes.
	ip := b[offload.HdrLen:n]
	src, dst := append([]byte(nil), ip[12:16]...), append([]byte(nil), ip[16:20]...)
	copy(ip[12:], dst)
	copy(ip[16:], src)
	sport, dport := append([]byte(nil), ip[20:22]...), append([]byte(nil), ip[22:24]...)
	copy(ip[20:], dport)
	copy(ip[22:], sport)
	if err := d.Queues()[0].WriteFrame(iov(b[:n], offload.HdrLen, 20, 8)); err != nil {
		t.Fatal(err)
	}
	if err := pc.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	m, from, err := pc.ReadFrom(got)
	if err != nil || string(got[:m]) != "out" || from.String() != peer.String() {
		t.Errorf("received %q from %v, %v", got[:m], from, err)
	}
}

// readUDP returns the next UDP frame, past what the kernel sends on its own.
func readUDP(t *testing.T, q tundev.Queue, b []byte) (p offload.Packet, n int) {
	t.Helper()
	for {
		n, err := q.ReadFrame(iov(b, offload.HdrLen, 20, 100))
		if err != nil {
			t.Fatal(err)
		}
		if v := offload.Parse(&p, b[offload.HdrLen:n], n-offload.HdrLen); v == offload.OK && p.Proto == offload.ProtoUDP {
			return p, n
		}
	}
}

// TestClose wakes a reader that sleeps.
func TestClose(t *testing.T) {
	d := create(t, namespace(t), tundev.Options{Name: "tun0"})
	reader := startReader(d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-reader; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader ended with %v, want net.ErrClosed", err)
	}
	b := make([]byte, 40)
	if err := d.Queues()[0].WriteFrame(iov(b, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v, want net.ErrClosed", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// startReader reads until the first error and returns that.
func startReader(d *tundev.Device) chan error {
	ended := make(chan error, 1)
	go func() {
		b := make([]byte, offload.HdrLen+65535)
		for {
			if _, err := d.Queues()[0].ReadFrame(iov(b, offload.HdrLen)); err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}

// TestDeleted tells readers and writers that the device is gone.
func TestDeleted(t *testing.T) {
	ns := namespace(t)
	d := create(t, ns, tundev.Options{Name: "tun0"})
	reader := startReader(d)
	if err := ns.IP("link del tun0"); err != nil {
		t.Fatal(err)
	}
	if err := <-reader; !errors.Is(err, tundev.ErrGone) {
		t.Errorf("reader ended with %v, want ErrGone", err)
	}
	b := make([]byte, 40)
	if err := d.Queues()[0].WriteFrame(iov(b, 10)); !errors.Is(err, tundev.ErrGone) {
		t.Errorf("write: %v, want ErrGone", err)
	}
}

// TestRecreate makes a deleted device again, by the name it had, while the old one
// is still open.
func TestRecreate(t *testing.T) {
	ns := namespace(t)
	if err := ns.IP("tuntap add tap7 mode tap multi_queue"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []tundev.Options{
		{NetNS: ns.Name, Queues: 1, MTU: 1400, Addresses: options.Addresses, Routes: options.Routes},
		{NetNS: ns.Name, Name: "many%d", Queues: 3},
		{NetNS: ns.Name, Name: "tap7", Kind: tundev.TAP, Attach: true, Queues: 2},
	} {
		old, err := tundev.Create(o)
		if err != nil {
			t.Fatal(err)
		}
		if !old.Recreatable() {
			t.Errorf("%s cannot be had again", old.Name())
		}
		if err := ns.IP("link del " + old.Name()); err != nil {
			t.Fatal(err)
		}
		if o.Attach {
			if _, err := tundev.Create(old.Options()); err == nil || !strings.Contains(err.Error(), "no interface tap7") {
				t.Errorf("attached to nothing: %v", err)
			}
			if err := ns.IP("tuntap add tap7 mode tap multi_queue"); err != nil {
				t.Fatal(err)
			}
		}
		again, err := tundev.Create(old.Options())
		if err != nil {
			t.Fatal(err)
		}
		if again.Name() != old.Name() || again.MTU() != old.MTU() || again.Features() != old.Features() || len(again.Queues()) != len(old.Queues()) {
			t.Errorf("%s, %d queues, became %s, %d queues", old.Name(), len(old.Queues()), again.Name(), len(again.Queues()))
		}
		if err := errors.Join(old.Close(), again.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestDown is no end: writes fail with EIO until the link is up again.
func TestDown(t *testing.T) {
	ns := namespace(t)
	d := create(t, ns, tundev.Options{Name: "tun0"})
	if err := ns.IP("link set tun0 down"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 40)
	b[offload.HdrLen] = 0x45
	if err := d.Queues()[0].WriteFrame(iov(b, 10)); !errors.Is(err, unix.EIO) {
		t.Errorf("write to a link that is down: %v, want EIO", err)
	}
	if err := ns.IP("link set tun0 up"); err != nil {
		t.Fatal(err)
	}
	if err := d.Queues()[0].WriteFrame(iov(b, 10)); err != nil {
		t.Errorf("write after up: %v", err)
	}
}

// TestOffloads takes and gives back each offload.
func TestOffloads(t *testing.T) {
	for _, c := range []struct {
		o    tundev.Offload
		want tundev.Features
		text string
	}{
		{tundev.Offload{}, allFeatures, "checksum tso4 tso6 ecn uso"},
		{tundev.Offload{VnetHdr: tundev.On, Checksum: tundev.On, TSO4: tundev.On, TSO6: tundev.On, ECN: tundev.On, USO: tundev.On}, allFeatures, "checksum tso4 tso6 ecn uso"},
		{tundev.Offload{USO: tundev.Off}, tundev.Features{VnetHdr: true, Checksum: true, TSO4: true, TSO6: true, ECN: true}, "checksum tso4 tso6 ecn"},
		{tundev.Offload{TSO4: tundev.Off, TSO6: tundev.Off}, tundev.Features{VnetHdr: true, Checksum: true}, "checksum"},
		{tundev.Offload{TSO4: tundev.Off, TSO6: tundev.Off, USO: tundev.On}, tundev.Features{VnetHdr: true, Checksum: true, USO: true}, "checksum uso"},
		{tundev.Offload{TSO4: tundev.Off}, tundev.Features{VnetHdr: true, Checksum: true, TSO6: true, ECN: true, USO: true}, "checksum tso6 ecn uso"},
		{tundev.Offload{TSO6: tundev.Off, ECN: tundev.Off}, tundev.Features{VnetHdr: true, Checksum: true, TSO4: true, USO: true}, "checksum tso4 uso"},
		{tundev.Offload{Checksum: tundev.Off}, tundev.Features{VnetHdr: true}, "none"},
		{tundev.Offload{VnetHdr: tundev.Off}, tundev.Features{}, "none"},
	} {
		for _, o := range []tundev.Options{{Queues: 1}, {Kind: tundev.TAP, Queues: 1}, {Queues: 4}} {
			t.Run(fmt.Sprint(o.Kind, o.Queues, c.o), func(t *testing.T) {
				ns := namespace(t)
				o.Name, o.Offload = "dev0", c.o
				d := create(t, ns, o)
				if d.Features() != c.want || d.Features().String() != c.text || len(d.Notes()) != 0 {
					t.Errorf("features %v, want %v; notes %q", d.Features(), c.text, d.Notes())
				}
				checkKernelFeatures(t, ns, c.want)
			})
		}
	}
}

// allFeatures is what auto takes on a kernel that has everything.
var allFeatures = tundev.Features{VnetHdr: true, Checksum: true, TSO4: true, TSO6: true, ECN: true, USO: true}

// checkKernelFeatures asks ethtool whether the kernel's side is as the device says.
func checkKernelFeatures(t *testing.T, ns *testutil.Namespace, f tundev.Features) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns.Name, "ethtool", "-k", "dev0").Output()
	if err != nil {
		t.Fatalf("the kernel's side cannot be seen: install ethtool (make packages): %v", err)
	}
	for name, want := range map[string]bool{
		"tx-checksum-ip-generic": f.Checksum, "tx-tcp-segmentation": f.TSO4, "tx-tcp6-segmentation": f.TSO6,
		"tx-tcp-ecn-segmentation": f.ECN, "tx-udp-segmentation": f.USO,
	} {
		if is := strings.Contains(string(out), "\t"+name+": on") || strings.Contains(string(out), "\n"+name+": on"); is != want {
			t.Errorf("%s is %v in the kernel, and the device says %v", name, is, f)
		}
	}
}

// TestAttach serves a device by its file, and refuses what is none.
func TestAttach(t *testing.T) {
	ns := namespace(t)
	d := create(t, ns, tundev.Options{Name: "tun0"})
	var dup int
	err := d.Control(func(fd int) (err error) { dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); return err })
	if err != nil {
		t.Fatal(err)
	}
	a, err := tundev.Attach(os.NewFile(uintptr(dup), "tun"), 1500, tundev.Offload{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Name() != "tun0" || !a.Features().TSO4 || a.MTU() != 1500 {
		t.Errorf("attached %s, %v", a.Name(), a.Features())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := tundev.Attach(r, 1500, tundev.Offload{}); err == nil || !strings.Contains(err.Error(), "no TUN") {
		t.Errorf("a pipe was attached: %v", err)
	}
	if _, err := tundev.Attach(openRaw(t, ns, unix.IFF_TUN|unix.IFF_VNET_HDR), 1500, tundev.Offload{}); err == nil || !strings.Contains(err.Error(), "IFF_NO_PI") {
		t.Errorf("a device with packet information: %v", err)
	}
	if _, err := tundev.Attach(openRaw(t, ns, unix.IFF_TUN|unix.IFF_NO_PI), 1500, tundev.Offload{TSO4: tundev.On}); err == nil || !strings.Contains(err.Error(), "offload.tso4") {
		t.Errorf("TSO without vnet_hdr: %v", err)
	}
	for flags, want := range map[uint16]tundev.Features{
		unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR: allFeatures,
		unix.IFF_TUN | unix.IFF_NO_PI:                     {},
	} {
		a, err := tundev.Attach(openRaw(t, ns, flags), 1500, tundev.Offload{})
		if err != nil {
			t.Fatal(err)
		}
		if tap := flags&unix.IFF_TAP != 0; a.Features() != want || (a.Kind() == tundev.TAP) != tap {
			t.Errorf("flags %#x: %s, %v", flags, a.Kind(), a.Features())
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// openRaw makes a device with the given flags.
func openRaw(t *testing.T, ns *testutil.Namespace, flags uint16) *os.File {
	t.Helper()
	var f *os.File
	err := ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "raw")
		ifr, err := unix.NewIfreq("raw%d")
		if err != nil {
			return err
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCreateErrors says in one sentence what is wrong and what to do.
func TestCreateErrors(t *testing.T) {
	ns := namespace(t)
	create(t, ns, tundev.Options{Name: "tun0", Routes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	for _, c := range []struct {
		name string
		o    tundev.Options
		want string
	}{
		{"taken", tundev.Options{Name: "tun0"}, "choose another device.name"},
		{"long name", tundev.Options{Name: "a-name-of-seventeen"}, "longer than"},
		{"bad name", tundev.Options{Name: "a/b"}, "valid interface name"},
		{"small MTU", tundev.Options{Name: "x", MTU: 67}, "mtu"},
		{"large MTU", tundev.Options{Name: "x", MTU: 65536}, "mtu"},
		{"IPv6 MTU", tundev.Options{Name: "x", MTU: 1279, Addresses: options.Addresses}, "1280"},
		{"TSO without checksum", tundev.Options{Name: "x", Offload: tundev.Offload{TSO4: tundev.On, Checksum: tundev.Off}}, "offload.tso4"},
		{"route taken", tundev.Options{Name: "x", Routes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}, "device.routes"},
	} {
		err := ns.Do(func() error {
			d, err := tundev.Create(c.o)
			if err == nil {
				return d.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a sentence with %q", c.name, err, c.want)
		}
	}
	err := ns.Do(func() error {
		l, err := netlink.LinkList()
		if err == nil && len(l) != 2 { // lo and tun0
			t.Errorf("failed attempts left %d interfaces behind", len(l)-2)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNoIPv6 goes on without an IPv6 address where it is switched off for good,
// and says so.
func TestNoIPv6(t *testing.T) {
	ns := namespace(t)
	if err := ns.Sysctl("ipv6/conf/all/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	d := create(t, ns, tundev.Options{Name: "tun0", Addresses: options.Addresses})
	// The test may write /proc/sys, so the device has its address all the same;
	// in a container it would have a note instead.
	if len(d.Notes()) != 0 {
		t.Errorf("notes %q", d.Notes())
	}
}

// TestMode parses what the config writes.
func TestMode(t *testing.T) {
	for _, want := range []tundev.Mode{tundev.Auto, tundev.On, tundev.Off} {
		var m tundev.Mode
		if err := m.UnmarshalText([]byte(want.String())); err != nil || m != want {
			t.Errorf("%v became %v, %v", want, m, err)
		}
	}
	var m tundev.Mode
	if err := m.UnmarshalText([]byte("maybe")); err == nil {
		t.Error("maybe is no mode")
	}
}

// TestNetNS makes the device in another namespace, named in each of three ways,
// and leaves the caller's thread where it was.
func TestNetNS(t *testing.T) {
	ns := namespace(t)
	pid, err := ns.Start(exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pid.Kill)
	for _, where := range []string{ns.Path(), ns.Name, strconv.Itoa(pid.PID)} {
		o := options
		o.NetNS = where
		d, err := tundev.Create(o)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if err := ns.Do(func() error { _, err := netlink.LinkByName("tun0"); return err }); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		if _, err := netlink.LinkByName("tun0"); err == nil {
			t.Errorf("%s: the device is in the test's own namespace", where)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	for where, want := range map[string]string{"no-such-name": "ip netns list", "/no/such/path": "not there", "/dev/null": "no network namespace", "999999999": "not there"} {
		if _, err := tundev.Create(tundev.Options{NetNS: where}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a sentence with %q", where, err, want)
		}
	}
}

// TestAttachByName serves a persistent device, which keeps what its maker gave it
// and stays.
func TestAttachByName(t *testing.T) {
	ns := namespace(t)
	err := ns.IP("tuntap add tun7 mode tun", "link set tun7 mtu 1300 up", "addr add 198.18.0.1/15 dev tun7", "tuntap add tap7 mode tap")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d := create(t, ns, tundev.Options{Name: "tun7", Attach: true})
		if d.MTU() != 1300 || d.Name() != "tun7" || !d.Features().TSO4 {
			t.Errorf("attached %s, MTU %d, %v", d.Name(), d.MTU(), d.Features())
		}
		if err := ns.Do(func() error {
			_, err := tundev.Create(tundev.Options{Name: "tun7", Attach: true})
			return err
		}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second attachment: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d := create(t, ns, tundev.Options{Name: "tun7", Attach: true, MTU: 1400, Addresses: options.Addresses[1:]})
	if d.MTU() != 1400 {
		t.Errorf("MTU %d, want the 1400 asked for", d.MTU())
	}
	for name, want := range map[string]string{"tun8": "no interface", "lo": "no TUN", "tap7": "set device.kind to tap", "": "needs the name"} {
		if err := ns.Do(func() error {
			_, err := tundev.Create(tundev.Options{Name: name, Attach: true})
			return err
		}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a sentence with %q", name, err, want)
		}
	}
}

// TestWatchEnds with its context, and leaves no goroutine.
func TestWatchEnds(t *testing.T) {
	ns := namespace(t)
	d, err := tundev.Create(tundev.Options{Name: "tun0", NetNS: ns.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	err = d.Watch(ctx, func(tundev.State) { cancel() })
	if err != nil {
		t.Error(err)
	}
}
