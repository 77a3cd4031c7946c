package testutil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nsDir is where iproute2 keeps named network namespaces.
const nsDir = "/run/netns"

// nsPrefix begins the name of every namespace made here; the owner's pid follows.
const nsPrefix = "tungate-"

// maxThreads bounds the threads that sit in a namespace for one Dial each.
const maxThreads = 48

// Namespace is a named network namespace.
type Namespace struct {
	Name string
	file *os.File
	dial chan struct{} // one token a Dial under way
}

// NewNamespace makes a namespace with its loopback up. Its name carries label,
// this process's pid and a random suffix.
func NewNamespace(label string) (*Namespace, error) {
	name := fmt.Sprintf("%s%d-%s-%04x", nsPrefix, os.Getpid(), label, rand.IntN(1<<16))
	if err := ip("netns", "add", name); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(nsDir, name))
	if err != nil {
		return nil, errors.Join(err, ip("netns", "del", name))
	}
	n := &Namespace{Name: name, file: file, dial: make(chan struct{}, maxThreads)}
	if err := n.IP("link set lo up"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close removes the namespace. Processes in it are the caller's to end first.
func (n *Namespace) Close() error {
	return errors.Join(n.file.Close(), ip("netns", "del", n.Name))
}

// Path is the namespace's file, for programs that join one by path.
func (n *Namespace) Path() string { return filepath.Join(nsDir, n.Name) }

// Sweep removes namespaces of earlier runs whose process is gone.
func Sweep() error {
	entries, err := os.ReadDir(nsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		owner, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), nsPrefix), "-")
		pid, perr := strconv.Atoi(owner)
		if !strings.HasPrefix(e.Name(), nsPrefix) || perr != nil {
			continue
		}
		if unix.Kill(pid, 0) == unix.ESRCH {
			errs = append(errs, ip("netns", "del", e.Name()))
		}
	}
	return errors.Join(append(errs, err)...)
}

// Do runs f on a thread inside the namespace and returns its error. Sockets made
// by f stay in the namespace whoever uses them later. f may not start goroutines
// that make sockets, nor end by runtime.Goexit (t.FailNow).
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("testutil: the function left by Goexit")
		defer func() { result <- err }()
		runtime.LockOSThread()
		home, oerr := os.Open("/proc/thread-self/ns/net")
		if oerr != nil {
			err = oerr
			return
		}
		defer home.Close()
		if serr := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); serr != nil {
			err = fmt.Errorf("enter %s: %w", n.Name, serr)
			return
		}
		err = f()
		// A thread that cannot go home ends with this goroutine, still locked.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-result
}

// IP runs iproute2 commands in the namespace, one a line, such as
// "addr add 192.0.2.1/24 dev up0". A line may begin with "-6".
func (n *Namespace) IP(lines ...string) error {
	for _, line := range lines {
		args := append([]string{"-n", n.Name}, strings.Fields(line)...)
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// Sysctl writes a value below /proc/sys/net of the namespace and checks that it
// took.
func (n *Namespace) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys/net", key)
	err := n.Do(func() error {
		return os.WriteFile(path, []byte(value), 0o644)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	got, err := n.ReadSysctl(key)
	if err == nil && strings.Join(strings.Fields(got), " ") != value {
		err = fmt.Errorf("%s: net/%s is %q after writing %q", n.Name, key, got, value)
	}
	return err
}

// ReadSysctl reads a value below /proc/sys/net as the namespace sees it.
func (n *Namespace) ReadSysctl(key string) (string, error) {
	var b []byte
	err := n.Do(func() (err error) {
		b, err = os.ReadFile(filepath.Join("/proc/sys/net", key))
		return err
	})
	return strings.TrimSpace(string(b)), err
}

// DialContext dials from inside the namespace. address must be numeric.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return n.DialWith(ctx, &net.Dialer{}, network, address)
}

// DialWith is DialContext with a dialer of the caller's.
func (n *Namespace) DialWith(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	select {
	case n.dial <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-n.dial }()
	return n.dialNow(ctx, d, network, address)
}

// dialNow dials without waiting for one of the threads that Dial may use: what
// looks at a gateway must not queue behind the load.
func (n *Namespace) dialNow(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Dial dials from inside the namespace with a timeout. address must be numeric.
func (n *Namespace) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	return n.DialWith(context.Background(), &net.Dialer{Timeout: timeout}, network, address)
}

// Listen listens for TCP inside the namespace.
func (n *Namespace) Listen(address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", address)
		return err
	})
	return l, err
}

// packetBuffer is the receive buffer of a UDP server, in bytes: the kernel's 208
// KiB hold some 160 datagrams, and tests send more than that at once.
const packetBuffer = 8 << 20

// ListenPacket opens a UDP socket inside the namespace, with a receive buffer that
// holds a burst.
func (n *Namespace) ListenPacket(address string) (*net.UDPConn, error) {
	var c net.PacketConn
	err := n.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp", address)
		return err
	})
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
	rc, err := conn.SyscallConn()
	if err == nil {
		cerr := rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer)
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// ip runs one iproute2 command; its error says which and what the tool said.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
