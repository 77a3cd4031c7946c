package tundev_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// variants are the ways in which frames may pass a device.
func variants() map[string]tundev.Options {
	all := map[string]tundev.Options{}
	for _, kind := range []tundev.Kind{tundev.TUN, tundev.TAP} {
		for _, queues := range []int{1, 4} {
			for _, hdr := range []tundev.Mode{tundev.Auto, tundev.Off} {
				all[fmt.Sprintf("%s, %d queues, vnet_hdr %s", kind, queues, hdr)] = tundev.Options{
					Kind: kind, Queues: queues, Name: "dev0", MTU: 1400, Offload: tundev.Offload{VnetHdr: hdr},
					Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("fd00:18::1/64")},
				}
			}
		}
	}
	return all
}

// cuts are the ways in which frames may lie in memory, as lengths of all vectors but
// the last.
func cuts() [][]int { return [][]int{{offload.HdrLen, 30}, {}, {offload.HdrLen + 30}} }

// TestVariants makes each variant and passes datagrams both ways through every
// queue.
func TestVariants(t *testing.T) {
	for name, o := range variants() {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			d := create(t, ns, o)
			if d.Kind() != o.Kind || d.MTU() != 1400 || len(d.Queues()) != o.Queues || len(d.Notes()) != 0 {
				t.Errorf("%s, MTU %d, %d queues, notes %q", d.Kind(), d.MTU(), len(d.Queues()), d.Notes())
			}
			checkInterface(t, ns, d)
			pc, err := ns.ListenPacket("198.18.0.1:7000")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			for i, q := range d.Queues() {
				for _, cut := range cuts() {
					if at := echoThrough(t, d, q, pc, fmt.Sprintf("by queue %d, cut at %v", i, cut), cut...); at != i {
						t.Errorf("the flow left by queue %d and came back on %d", i, at)
					}
				}
			}
		})
	}
}

// checkInterface compares the kernel's interface with what the device says.
func checkInterface(t *testing.T, ns *testutil.Namespace, d *tundev.Device) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName("dev0")
		if err != nil {
			return err
		}
		a := l.Attrs()
		if a.MTU != int(d.MTU()) || a.Flags&net.FlagUp == 0 {
			t.Errorf("interface %+v", a)
		}
		if !bytes.Equal(a.HardwareAddr, d.HardwareAddr()) || (d.Kind() == tundev.TAP) != (len(d.HardwareAddr()) == 6) {
			t.Errorf("interface has address %v, the device says %v", a.HardwareAddr, d.HardwareAddr())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// datagram is a frame with a UDP datagram to 198.18.0.1:7000, checksums complete.
func datagram(d *tundev.Device, payload string) []byte {
	frame := append([]byte(nil), make([]byte, offload.HdrLen)...)
	if d.Kind() == tundev.TAP {
		frame = append(frame, d.HardwareAddr()...)
		frame = append(frame, 2, 0, 0, 0, 0, 9, 0x08, 0)
	}
	ip := make([]byte, 28+len(payload))
	copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, offload.ProtoUDP, 0, 0, 198, 19, 0, 9, 198, 18, 0, 1, 0x1b, 0x59, 0x1b, 0x58})
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(payload)))
	copy(ip[28:], payload)
	binary.BigEndian.PutUint16(ip[10:], ^offload.Sum(ip[:20], 0))
	return append(frame, ip...) // UDP checksum 0: none (RFC 768)
}

// echoThrough writes a datagram to q, reads the kernel's answer from whichever queue
// it chooses, and returns that queue's index. Frames are cut into vectors.
func echoThrough(t *testing.T, d *tundev.Device, q tundev.Queue, pc *net.UDPConn, text string, cut ...int) int {
	t.Helper()
	v := iov(datagram(d, text), cut...)
	before := slices.Clone(v)
	if err := q.WriteFrame(v); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(v, before) {
		t.Error("the vectors are not as they were")
	}
	if err := pc.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := pc.ReadFrom(b)
	if err != nil || string(b[:n]) != text {
		t.Fatalf("received %q from %v, %v", b[:n], from, err)
	}
	if d.Kind() == tundev.TAP { // the test answers no ARP
		answerARP(t, d, pc)
	}
	if _, err := pc.WriteTo([]byte("answer "+text), from); err != nil {
		t.Fatal(err)
	}
	got, at := awaitUDP(t, d, cut...)
	if got != "answer "+text {
		t.Errorf("read %q", got)
	}
	return at
}

// answerARP tells the kernel where 198.19.0.9 is.
func answerARP(t *testing.T, d *tundev.Device, pc *net.UDPConn) {
	t.Helper()
	f := make([]byte, offload.HdrLen, 64)
	f = append(f, d.HardwareAddr()...)
	f = append(f, 2, 0, 0, 0, 0, 9, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 198, 19, 0, 9)
	f = append(f, d.HardwareAddr()...)
	f = append(f, 198, 18, 0, 1)
	if _, err := pc.WriteTo([]byte("who has"), &net.UDPAddr{IP: net.IPv4(198, 19, 0, 9), Port: 9}); err != nil {
		t.Fatal(err)
	}
	if err := d.Queues()[0].WriteFrame(iov(f, offload.HdrLen)); err != nil {
		t.Fatal(err)
	}
}

// awaitUDP returns the payload of the next datagram to port 7001, and its queue.
func awaitUDP(t *testing.T, d *tundev.Device, cut ...int) (string, int) {
	t.Helper()
	l2 := 0
	if d.Kind() == tundev.TAP {
		l2 = 14
	}
	b := bytes.Repeat([]byte{0xee}, offload.HdrLen+18+65535)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		for i, q := range d.Queues() {
			n, err := q.TryReadFrame(iov(b, cut...))
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if !d.Features().VnetHdr && !bytes.Equal(b[:offload.HdrLen], make([]byte, offload.HdrLen)) {
				t.Errorf("a header that says % x", b[:offload.HdrLen])
			}
			var p offload.Packet
			ip := b[offload.HdrLen+l2 : n]
			if offload.Parse(&p, ip, len(ip)) == offload.OK && p.Proto == offload.ProtoUDP && p.DstPort == 7001 {
				return string(ip[p.L3Len+p.L4Len : p.Len]), i
			}
		}
	}
	t.Fatal("no answer")
	return "", 0
}

// TestBare: without vnet_hdr the header stays here, and there must be one.
func TestBare(t *testing.T) {
	d := create(t, namespace(t), tundev.Options{Queues: 1, Offload: tundev.Offload{VnetHdr: tundev.Off}})
	q := d.Queues()[0]
	b := make([]byte, 100)
	b[offload.HdrLen] = 0x45
	for name, v := range map[string][]unix.Iovec{"nothing": nil, "half a header": iov(b, 5), "header alone": iov(b, 10)[:1]} {
		if err := q.WriteFrame(v); !errors.Is(err, unix.EINVAL) {
			t.Errorf("write of %s: %v, want EINVAL", name, err)
		}
		if _, err := q.TryReadFrame(v); !errors.Is(err, unix.EINVAL) {
			t.Errorf("read into %s: %v, want EINVAL", name, err)
		}
	}
	b[0] = offload.FlagNeedsCsum
	if err := q.WriteFrame(iov(b, 10)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a checksum nobody will complete: %v, want EINVAL", err)
	}
}

// TestKindErrors names what does not fit, and the remedy.
func TestKindErrors(t *testing.T) {
	ns := namespace(t)
	if err := ns.IP("tuntap add tun7 mode tun", "tuntap add tap7 mode tap"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    tundev.Options
		want string
	}{
		{"tun as tap", tundev.Options{Name: "tun7", Attach: true, Kind: tundev.TAP}, "set device.kind to tun"},
		{"tap as tun", tundev.Options{Name: "tap7", Attach: true}, "set device.kind to tap"},
		{"queues", tundev.Options{Name: "tun7", Attach: true, Queues: 2}, "made without multi_queue"},
		{"no kind", tundev.Options{Kind: 2}, "kind: 2"},
		{"no action", tundev.Options{OnDelete: 2}, "on_delete: 2"},
		{"no mode", tundev.Options{Offload: tundev.Offload{VnetHdr: 3, USO: 4}}, "offload.vnet_hdr: 3"},
		{"no tap", tundev.Options{Name: "tap8", Attach: true, Kind: tundev.TAP}, "ip tuntap add tap8 mode tap"},
		{"MTU of a tap", tundev.Options{Kind: tundev.TAP, MTU: 65522}, "65521"},
		{"queue number", tundev.Options{Queues: 257}, "256"},
		{"header off, TSO on", tundev.Options{Offload: tundev.Offload{VnetHdr: tundev.Off, TSO4: tundev.On}}, "offload.vnet_hdr"},
		{"header off, USO on", tundev.Options{Offload: tundev.Offload{VnetHdr: tundev.Off, USO: tundev.On}}, "offload.vnet_hdr"},
		{"ecn without TSO", tundev.Options{Offload: tundev.Offload{TSO4: tundev.Off, TSO6: tundev.Off, ECN: tundev.On}}, "offload.tso4"},
		{"large MTU attached", tundev.Options{Name: "tun7", Attach: true, MTU: 65535}, ""},
		{"largest MTU of a tap", tundev.Options{Kind: tundev.TAP, MTU: tundev.MaxMTUTAP}, ""},
		{"largest MTU of a tun", tundev.Options{MTU: tundev.MaxMTU, Queues: 2}, ""},
	} {
		err := ns.Do(func() error {
			d, err := tundev.Create(c.o)
			if err == nil {
				return d.Close()
			}
			return err
		})
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a sentence with %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") && c.name != "no mode" {
			t.Errorf("%s: more than one sentence: %v", c.name, err)
		}
	}
}

// TestAttachQueues: as many queues as the device was made for.
func TestAttachQueues(t *testing.T) {
	ns := namespace(t)
	for _, kind := range []string{"tun", "tap"} {
		var k tundev.Kind
		if err := k.UnmarshalText([]byte(kind)); err != nil {
			t.Fatal(err)
		}
		if err := ns.IP("tuntap add "+kind+"1 mode "+kind, "tuntap add "+kind+"4 mode "+kind+" multi_queue"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name          string
			queues, wants int
		}{{"1", 0, 1}, {"1", 1, 1}, {"4", 1, 1}, {"4", 4, 4}} {
			d := create(t, ns, tundev.Options{Name: kind + c.name, Kind: k, Attach: true, Queues: c.queues})
			if len(d.Queues()) != c.wants || !d.Features().TSO4 || d.Kind() != k {
				t.Errorf("%s%s with %d: %d queues, %v", kind, c.name, c.queues, len(d.Queues()), d.Features())
			}
			if c.name == "4" {
				second := create(t, ns, tundev.Options{Name: kind + "4", Kind: k, Attach: true, Queues: 2})
				if len(second.Notes()) != 1 || !strings.Contains(second.Notes()[0], fmt.Sprintf("on %d queues", c.wants)) {
					t.Errorf("beside another program: notes %q", second.Notes())
				}
				if err := second.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// unprivileged is nobody's uid; the tests' processes have it none other.
const unprivileged = 65534

// TestHelperAttach is the process that TestAttachUnprivileged starts.
func TestHelperAttach(t *testing.T) {
	if os.Getenv("TUNDEV_HELPER") == "" {
		return // it runs in a process of its own
	}
	for _, name := range []string{"tun1", "tun4", "tap1", "tap4"} {
		var k tundev.Kind
		if err := k.UnmarshalText([]byte(name[:3])); err != nil {
			t.Fatal(err)
		}
		d, err := tundev.Create(tundev.Options{Name: name, Kind: k, Attach: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: %d queues, MTU %d, %v", name, len(d.Queues()), d.MTU(), d.Features())
		if !d.Features().TSO4 || d.MTU() != 1300 || (name[3] == '4') != (len(d.Queues()) > 1) {
			t.Errorf("%s: %d queues, MTU %d, %v", name, len(d.Queues()), d.MTU(), d.Features())
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := d.Watch(ctx, func(s tundev.State) {
			if !s.Up || s.MTU != 1300 {
				t.Errorf("%s: %+v", name, s)
			}
			cancel()
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]string{"other": "belongs to another user", "": "CAP_NET_ADMIN"} {
		_, err := tundev.Create(tundev.Options{Name: name, Attach: name != ""})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a sentence with %q", name, err, want)
		}
	}
	if _, err := tundev.Create(tundev.Options{NetNS: "tungate-none", CreateNetNS: true}); err == nil || !strings.Contains(err.Error(), "ip netns add tungate-none") {
		t.Errorf("a namespace: %v", err)
	}
	d, err := tundev.Create(tundev.Options{FDs: []int{3}})
	if err != nil {
		t.Fatal(err)
	}
	if d.Name() != "given" || d.MTU() != 1330 || !d.Features().TSO4 {
		t.Errorf("by descriptor: %s, MTU %d, %v", d.Name(), d.MTU(), d.Features())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tundev.Create(tundev.Options{Name: "tun1", Attach: true, MTU: 1400}); err == nil || !strings.Contains(err.Error(), "leave device.mtu out") {
		t.Errorf("another MTU: %v", err)
	}
}

// TestAttachUnprivileged: a device's owner needs no capability at all.
func TestAttachUnprivileged(t *testing.T) {
	ns := namespace(t)
	for _, name := range []string{"tun1", "tap1", "tun4 multi_queue", "tap4 multi_queue"} {
		dev, multi, _ := strings.Cut(name, " ")
		if err := ns.IP(fmt.Sprintf("tuntap add %s mode %s user %d %s", dev, dev[:3], unprivileged, multi), "link set "+dev+" mtu 1300 up"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.IP("tuntap add other mode tun user 1"); err != nil {
		t.Fatal(err)
	}
	// Of its own in that process: a node that everybody may open, as
	// distributions have it.
	dir := openDir(t)
	become := fmt.Sprintf("mount --bind %s/tun /dev/net/tun && exec setpriv --reuid %d --regid %d --clear-groups %s/test -test.run='^TestHelperAttach$' -test.v", dir, unprivileged, unprivileged, dir)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", become)
	cmd.Env = append(os.Environ(), "TUNDEV_HELPER=1", "GOMAXPROCS=4")
	cmd.Dir = "/"
	given := os.NewFile(uintptr(openQueue(t, ns, "given", tunFlags|hdrFlag)), "given")
	defer given.Close()
	cmd.ExtraFiles = []*os.File{given}
	if err := ns.IP("link set given mtu 1330 up"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := ns.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(within); err != nil {
		p.Kill()
		t.Errorf("%v\n%s", err, out.Bytes())
	}
}

// openDir is a directory that everybody may enter, with a copy of this test's
// program and a device node.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tundev") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", b, 0o755),
			unix.Mknod(dir+"/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))), os.Chmod(dir+"/tun", 0o666))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
