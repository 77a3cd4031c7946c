package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
)

// openQueues makes a device in the client's namespace as somebody else would, and
// returns a descriptor of each queue.
func openQueues(t *testing.T, lab *testutil.Lab, queues int) []*os.File {
	t.Helper()
	var files []*os.File
	err := lab.Client.Do(func() error {
		for range queues {
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			files = append(files, os.NewFile(uintptr(fd), "tun"))
			ifr, err := unix.NewIfreq(testutil.TunName)
			if err != nil {
				return err
			}
			flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			if queues > 1 {
				flags |= unix.IFF_MULTI_QUEUE
			}
			ifr.SetUint16(flags)
			if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, lab.Client.IP(
		"addr add 198.18.0.1/15 dev "+testutil.TunName,
		"-6 addr add fd00:18::1/64 nodad dev "+testutil.TunName,
		"link set "+testutil.TunName+" up"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return files
}

// given are the fields of a config whose device somebody else makes.
func given(set fields) fields {
	for _, made := range []string{"name", "mtu", "addresses"} {
		set["device."+made] = nil
	}
	return set
}

// TestInheritedDevice serves a device whose queues the gateway inherits, as from a
// container runtime.
func TestInheritedDevice(t *testing.T) {
	for _, queues := range []int{1, 2} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			t.Setenv(deviceEnv, "") // it is made here
			lab := newLab(t)
			files := openQueues(t, lab, queues)
			fds := []any{3, 4}[:queues]
			path := config(t, "direct.yaml", given(fields{"device.fds": fds}))
			g, err := testutil.StartGateway(lab.Client, gateway, path, func(cmd *exec.Cmd) { cmd.ExtraFiles = files })
			if err != nil {
				t.Fatal(err)
			}
			r := &running{g, lab, t}
			t.Cleanup(r.finish)
			if err := lab.RouteIntoDevice(); err != nil {
				t.Fatal(err)
			}
			carries(t, r)
			r.counts(t, exactly(float64(queues)), "tungate_device_queues")
		})
	}
}

// TestSentDevice serves a device whose queues come over a unix socket, and ends in
// order when it is told to while it still waits for them.
func TestSentDevice(t *testing.T) {
	t.Setenv(deviceEnv, "") // it is made here
	lab := newLab(t)
	files := openQueues(t, lab, 2)
	socket := filepath.Join(t.TempDir(), "device.sock")
	cmd := exec.Command(gateway, "run", "-c", config(t, "direct.yaml", given(fields{"device.socket": socket, "log.format": "json"})))
	p, err := lab.Client.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	var c *net.UnixConn
	eventually(t, soon, func() (err error) {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		return err
	})
	defer c.Close()
	rights := unix.UnixRights(int(files[0].Fd()), int(files[1].Fd()))
	if _, _, err := c.WriteMsgUnix([]byte("tun"), rights, nil); err != nil {
		t.Fatal(err)
	}
	deadline(t, c, soon)
	line := make([]byte, 100)
	n, err := c.Read(line)
	if got := string(line[:n]); err != nil || got != "ok "+testutil.TunName+"\n" {
		t.Fatalf("the gateway said %q (%v)", got, err)
	}
	if err := lab.RouteIntoDevice(); err != nil {
		t.Fatal(err)
	}
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		var conn net.Conn
		eventually(t, soon, func() (err error) {
			conn, err = lab.Client.Dial("tcp", to.String(), time.Second)
			return err
		})
		defer conn.Close()
		deadline(t, conn, soon)
		if err := exchange(conn); err != nil {
			t.Error(err)
		}
	})
	if err := p.Stop(long); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, p.Stderr)
	}

	waiting, err := lab.Client.Start(exec.Command(cmd.Path, cmd.Args[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(waiting.Kill)
	eventually(t, soon, func() error { _, err := os.Stat(socket); return err })
	if err := waiting.Stop(bounded(time.Second)); err != nil {
		t.Errorf("while waiting, after SIGTERM: %v\n%s", err, waiting.Stderr)
	}
	var entry struct{ Socket string }
	if json.Unmarshal([]byte(waiting.Stderr.String()), &entry) != nil || entry.Socket != socket {
		t.Errorf("it printed %q", waiting.Stderr)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// carries proves that traffic passes, over both families.
func carries(t *testing.T, r *running) {
	t.Helper()
	eachFamily(t, func(t *testing.T, f family) {
		echoBulk(t, r.lab, serve(t, r.lab.Server, f.server, 0, echo), 20, 1<<20)
	})
}

// echoBulk sends size bytes over each of some connections at once and compares what
// comes back.
func echoBulk(t *testing.T, lab *testutil.Lab, to netip.AddrPort, conns int, size int64) {
	t.Helper()
	together(t, conns, func(i int) error {
		c, err := lab.Client.Dial("tcp", to.String(), soon)
		if err != nil {
			return err
		}
		defer c.Close()
		deadline(t, c, long)
		sent := background(func() error { return send(c, uint64(i), size) })
		return errors.Join(receive(c, uint64(i), size), <-sent)
	})
}
