package tundev_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

const (
	tunFlags = unix.IFF_TUN | unix.IFF_NO_PI
	tapFlags = unix.IFF_TAP | unix.IFF_NO_PI
	hdrFlag  = unix.IFF_VNET_HDR
	mqFlag   = unix.IFF_MULTI_QUEUE
)

// openQueue opens a queue of a device called name in ns, as another program would.
func openQueue(t *testing.T, ns *testutil.Namespace, name string, flags uint16) int {
	t.Helper()
	fd := -1
	err := ns.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// noLeak checks that what f opens it closes, soon: the libraries' goroutines close
// some of it after they said that they had ended.
func noLeak(t *testing.T, f func()) {
	t.Helper()
	f() // what is opened once for good
	before := wait.Descriptors()
	f()
	wait.Until(t, "all descriptors to be closed", func() bool { return wait.Descriptors() <= before })
}

// TestFDs serves devices of both kinds by descriptors, in sight and out of it, and
// takes the descriptors away.
func TestFDs(t *testing.T) {
	ns := namespace(t)
	for _, c := range []struct {
		name   string
		flags  uint16
		queues int
		kind   tundev.Kind
		want   tundev.Features
	}{
		{"one queue", tunFlags | hdrFlag, 1, tundev.TUN, allFeatures},
		{"four queues", tunFlags | hdrFlag | mqFlag, 4, tundev.TUN, allFeatures},
		{"bare", tunFlags, 1, tundev.TUN, tundev.Features{}},
		{"tap", tapFlags | hdrFlag | mqFlag, 2, tundev.TAP, allFeatures},
		{"bare tap", tapFlags, 1, tundev.TAP, tundev.Features{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fds []int
			for range c.queues {
				fds = append(fds, openQueue(t, ns, "dev0", c.flags))
			}
			if err := ns.IP("link set dev0 mtu 1350 up", "addr add 198.18.0.1/15 dev dev0"); err != nil {
				t.Fatal(err)
			}
			d, err := tundev.Create(tundev.Options{FDs: fds, Kind: c.kind})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if d.Name() != "dev0" || d.Kind() != c.kind || d.Features() != c.want || len(d.Queues()) != c.queues || d.MTU() != 1350 || len(d.Notes()) != 0 {
				t.Errorf("%s %s: %v, %d queues, MTU %d, %q", d.Kind(), d.Name(), d.Features(), len(d.Queues()), d.MTU(), d.Notes())
			}
			if d.Recreatable() || d.Options().Name != "dev0" || len(d.Options().FDs) != 0 {
				t.Errorf("recreatable %v, %+v", d.Recreatable(), d.Options())
			}
			for _, fd := range fds {
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); err == nil && st.Rdev == unix.Mkdev(10, 200) && !isQueue(d, fd) {
					t.Errorf("descriptor %d is still open", fd)
				}
			}
			for _, q := range d.Queues() {
				if flags, err := unix.FcntlInt(uintptr(q.FD()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("a child would inherit the device: %#x, %v", flags, err)
				}
			}
			pc, err := ns.ListenPacket("198.18.0.1:7000")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			for i, q := range d.Queues() {
				echoThrough(t, d, q, pc, fmt.Sprint(i))
			}
		})
	}
}

func isQueue(d *tundev.Device, fd int) bool {
	for _, q := range d.Queues() {
		if q.FD() == fd {
			return true
		}
	}
	return false
}

// TestFDErrors says what is wrong with descriptors, and leaves them to the caller.
func TestFDErrors(t *testing.T) {
	ns := namespace(t)
	tun := openQueue(t, ns, "tun0", tunFlags|hdrFlag)
	multi := openQueue(t, ns, "mq0", tunFlags|hdrFlag|mqFlag)
	multi2 := openQueue(t, ns, "mq1", tunFlags|hdrFlag|mqFlag)
	tap := openQueue(t, ns, "tap0", tapFlags|hdrFlag)
	bare := openQueue(t, ns, "bare0", tunFlags)
	info := openQueue(t, ns, "info0", unix.IFF_TUN|hdrFlag)
	infoBare := openQueue(t, ns, "info1", unix.IFF_TUN)
	infoTAP := openQueue(t, ns, "info2", unix.IFF_TAP|hdrFlag)
	infoBareTAP := openQueue(t, ns, "info3", unix.IFF_TAP)
	plain, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	unset, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	dup, err := unix.Dup(tun)
	if err != nil {
		t.Fatal(err)
	}
	dupMulti, err := unix.Dup(multi)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range []int{tun, multi, multi2, tap, bare, info, infoBare, infoTAP, infoBareTAP, plain, unset, dup, dupMulti} {
			if err := unix.Close(fd); err != nil {
				t.Errorf("descriptor %d was closed by somebody: %v", fd, err)
			}
		}
	})
	for _, c := range []struct {
		name string
		o    tundev.Options
		want string
	}{
		{"another name", tundev.Options{FDs: []int{tun}, Name: "tun1"}, "device.name says tun1"},
		{"closed", tundev.Options{FDs: []int{9999}}, "9999 is not open"},
		{"no tun", tundev.Options{FDs: []int{plain}}, "no TUN or TAP"},
		{"no TUNSETIFF", tundev.Options{FDs: []int{unset}}, "TUNSETIFF"},
		{"other kind", tundev.Options{FDs: []int{tap}}, "set device.kind to tap"},
		{"other kind", tundev.Options{FDs: []int{tun}, Kind: tundev.TAP}, "set device.kind to tun"},
		{"count", tundev.Options{FDs: []int{tun}, Queues: 2}, "device.queues says 2"},
		{"two devices", tundev.Options{FDs: []int{multi, multi2}}, "two devices, mq0 and mq1"},
		{"one queue twice", tundev.Options{FDs: []int{tun, dup}}, "IFF_MULTI_QUEUE"},
		{"a duplicate", tundev.Options{FDs: []int{multi, dupMulti}}, "the same queue"},
		{"twice", tundev.Options{FDs: []int{multi, multi}}, "the same queue"},
		{"no header", tundev.Options{FDs: []int{bare}, Offload: tundev.Offload{VnetHdr: tundev.On}}, "IFF_VNET_HDR"},
		{"no header, TSO", tundev.Options{FDs: []int{bare}, Offload: tundev.Offload{TSO6: tundev.On}}, "device.offload.tso6"},
		{"packet information", tundev.Options{FDs: []int{info}}, "IFF_NO_PI"},
		{"packet information, bare", tundev.Options{FDs: []int{infoBare}}, "IFF_NO_PI"},
		{"packet information, tap", tundev.Options{FDs: []int{infoTAP}, Kind: tundev.TAP}, "IFF_NO_PI"},
		{"packet information, bare tap", tundev.Options{FDs: []int{infoBareTAP}, Kind: tundev.TAP}, "IFF_NO_PI"},
		{"and attach", tundev.Options{FDs: []int{tun}, Attach: true, Name: "tun0"}, "attach:"},
		{"and socket", tundev.Options{FDs: []int{tun}, Socket: "/run/x"}, "not both"},
		{"and addresses", tundev.Options{FDs: []int{tun}, Addresses: options.Addresses}, "addresses:"},
		{"and routes", tundev.Options{FDs: []int{tun}, Routes: options.Routes}, "routes:"},
		{"and create_netns", tundev.Options{FDs: []int{tun}, CreateNetNS: true, NetNS: "x"}, "create_netns:"},
	} {
		noLeak(t, func() {
			d, err := tundev.Create(c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want a sentence with %q", c.name, err, c.want)
			}
			if err == nil {
				d.Close()
			}
		})
	}
}

// TestFDMTU: the interface's own MTU counts, and what was asked for is noted.
func TestFDMTU(t *testing.T) {
	ns := namespace(t)
	d, err := tundev.Create(tundev.Options{FDs: []int{openQueue(t, ns, "tun0", tunFlags|hdrFlag)}, MTU: 9000})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.MTU() != 1500 || len(d.Notes()) != 1 || !strings.Contains(d.Notes()[0], "device.mtu 9000") {
		t.Errorf("MTU %d, notes %q", d.MTU(), d.Notes())
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	mtus := make(chan tundev.MTU, 4)
	ended := make(chan error, 1)
	go func() { ended <- d.Watch(ctx, func(s tundev.State) { mtus <- s.MTU }) }()
	for _, want := range []tundev.MTU{1500, 1400} {
		if got := <-mtus; got != want {
			t.Errorf("MTU %d, want %d", got, want)
		}
		if err := ns.IP("link set tun0 mtu 1400"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// send passes descriptors to a socket, as another program would, and returns the
// answer.
func send(t *testing.T, path string, fds ...int) string {
	t.Helper()
	conn := dial(t, path)
	defer conn.Close()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte("tun"), oob, nil); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(answer)
}

// dial connects to a socket as soon as it is there.
func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	var conn net.Conn
	if err := testutil.Poll(within, func() (err error) { conn, err = net.Dial("unix", path); return err }); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

// waitFor starts a Create that waits on a socket of the test's.
func waitFor(t *testing.T, ctx context.Context, o tundev.Options) (path string, created chan error, device **tundev.Device) {
	t.Helper()
	o.Socket = filepath.Join(t.TempDir(), "device.sock")
	created = make(chan error, 1)
	device = new(*tundev.Device)
	go func() {
		d, err := tundev.CreateContext(ctx, o)
		*device = d
		created <- err
	}()
	return o.Socket, created, device
}

// TestSocket receives a device of several queues, past senders that send nothing.
func TestSocket(t *testing.T) {
	ns := namespace(t)
	path, created, device := waitFor(t, t.Context(), tundev.Options{Kind: tundev.TAP})
	_ = dial(t, path).Close()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	fds := []int{openQueue(t, ns, "tap0", tapFlags|hdrFlag|mqFlag), openQueue(t, ns, "tap0", tapFlags|hdrFlag|mqFlag)}
	if answer := send(t, path, fds...); answer != "ok tap0\n" {
		t.Errorf("answer %q", answer)
	}
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	d := *device
	defer d.Close()
	if d.Name() != "tap0" || len(d.Queues()) != 2 || !d.Recreatable() || d.Options().Socket != path {
		t.Errorf("%s, %d queues", d.Name(), len(d.Queues()))
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestSocketErrors tells both sides what is wrong.
func TestSocketErrors(t *testing.T) {
	ns := namespace(t)
	for _, c := range []struct {
		name string
		o    tundev.Options
		fds  func() []int
		want string
	}{
		{"nothing", tundev.Options{}, func() []int { return nil }, "held no descriptor"},
		{"another kind", tundev.Options{Kind: tundev.TAP}, func() []int { return []int{openQueue(t, ns, "tun0", tunFlags)} }, "set device.kind to tun"},
		{"no device", tundev.Options{}, func() []int { fd, _ := unix.Open("/dev/null", unix.O_RDWR, 0); return []int{fd} }, "no TUN or TAP"},
		{"count", tundev.Options{Queues: 2}, func() []int { return []int{openQueue(t, ns, "tun0", tunFlags)} }, "device.queues says 2"},
	} {
		noLeak(t, func() {
			path, created, _ := waitFor(t, t.Context(), c.o)
			answer := send(t, path, c.fds()...)
			err := <-created
			if err == nil || !strings.Contains(err.Error(), c.want) || answer != err.Error()+"\n" {
				t.Errorf("%s: %v, the sender was told %q, want a sentence with %q", c.name, err, answer, c.want)
			}
		})
	}
	taken := filepath.Join(t.TempDir(), "taken")
	l, err := net.Listen("unix", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		taken: "another program waits", file: "is no socket", "/no/such/dir/x": "mkdir -p /no/such/dir",
		"/proc/x": "cannot be made", strings.Repeat("x", 108): "107 bytes",
	} {
		if _, err := tundev.Create(tundev.Options{Socket: path}); err == nil || !strings.Contains(err.Error(), want) {
			if want != "cannot be made" || err == nil {
				t.Errorf("%s: %v, want a sentence with %q", path, err, want)
			}
		}
	}
}

// TestSocketStranger: another user is told that it may not, and the wait goes on.
func TestSocketStranger(t *testing.T) {
	ns := namespace(t)
	o := tundev.Options{Socket: fmt.Sprintf("@tungate-%d", os.Getpid())} // no file, so no mode
	created := make(chan error, 1)
	go func() {
		d, err := tundev.CreateContext(t.Context(), o)
		if err == nil {
			err = d.Close()
		}
		created <- err
	}()
	answers := make(chan string, 1)
	dial(t, o.Socket).Close() // it is there
	go func() {
		// The thread takes another uid, and ends with its goroutine.
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, unprivileged, unprivileged, unprivileged); e != 0 {
			answers <- e.Error()
			return
		}
		conn, err := net.Dial("unix", o.Socket)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer conn.Close()
		answer, err := io.ReadAll(conn)
		answers <- fmt.Sprint(string(answer), err)
	}()
	if answer := <-answers; !strings.Contains(answer, fmt.Sprintf("user %d may not", unprivileged)) {
		t.Errorf("the stranger was told %q", answer)
	}
	if answer := send(t, o.Socket, openQueue(t, ns, "tun0", tunFlags|hdrFlag)); answer != "ok tun0\n" {
		t.Errorf("the owner was told %q", answer)
	}
	if err := <-created; err != nil {
		t.Error(err)
	}
}

// TestSocketStale replaces what a killed program left.
func TestSocketStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	created := make(chan error, 1)
	go func() { _, err := tundev.CreateContext(ctx, tundev.Options{Socket: path}); created <- err }()
	silent := dial(t, path) // that it connects says that the socket is a new one
	defer silent.Close()
	cancel() // also while a sender is silent
	if err := <-created; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestCreateLeaks: neither a device's life nor a failure leaves a descriptor.
func TestCreateLeaks(t *testing.T) {
	ns := namespace(t)
	for name, o := range variants() {
		noLeak(t, func() {
			o.NetNS = ns.Name
			d, err := tundev.Create(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tundev.Create(o); err == nil {
				t.Errorf("%s: made twice", name)
			}
			bad := o
			bad.Name, bad.Addresses = "dev1", []netip.Prefix{netip.MustParsePrefix("224.0.0.1/32"), netip.MustParsePrefix("ff02::1/128")}
			if _, err := tundev.Create(bad); err == nil {
				t.Errorf("%s: a multicast address was taken", name)
			}
			b := make([]byte, 64)
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if err := d.Queues()[0].WriteFrame(iov(b, offload.HdrLen)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: write after Close: %v", name, err)
			}
		})
	}
}
