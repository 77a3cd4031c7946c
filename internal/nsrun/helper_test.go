package nsrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// observation is what a command finds.
type observation struct {
	UID, GID  int
	Dir       string
	Args, Env []string
	Stdin     string
	Status    map[string]string // of /proc/self/status
	Links     []string
	Addrs     []string
	Routes    []string
	Resolv    string
	Ping      string // error of a socket for ICMP
	Ping6     string
	Hidden    []string // what /dev lacks
}

// observe prints an observation.
func observe(args []string) error {
	o := observation{UID: os.Getuid(), GID: os.Getgid(), Args: args, Env: os.Environ()}
	var err error
	if o.Dir, err = os.Getwd(); err != nil {
		return err
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	o.Stdin = string(in)
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	o.Resolv = string(resolv)
	if o.Status, err = status("self"); err != nil {
		return err
	}
	o.Ping, o.Ping6 = icmpSocket(unix.AF_INET, unix.IPPROTO_ICMP), icmpSocket(unix.AF_INET6, unix.IPPROTO_ICMPV6)
	for _, dev := range []string{"/dev/null", "/dev/net/tun"} {
		if _, err := os.Stat(dev); err != nil {
			o.Hidden = append(o.Hidden, dev)
		}
	}
	if err := o.network(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

func icmpSocket(family, proto int) string {
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err.Error()
	}
	_ = unix.Close(s)
	return ""
}

func status(pid string) (map[string]string, error) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m, nil
}

func (o *observation) network() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		o.Links = append(o.Links, fmt.Sprintf("%d %s up=%t mtu=%d", a.Index, a.Name, a.Flags&net.FlagUp != 0, a.MTU))
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			o.Addrs = append(o.Addrs, l.Attrs().Name+" "+a.IPNet.String())
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if ones, _ := r.Dst.Mask.Size(); ones == 0 {
				o.Routes = append(o.Routes, fmt.Sprintf("%s dev %d", r.Dst, r.LinkIndex))
			}
		}
	}
	slices.Sort(o.Addrs)
	return nil
}

// sendDatagram sends its second argument to its first.
func sendDatagram(args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(args[1]))
	return errors.Join(err, c.Close())
}

// gatewayUntilKilled runs a command that says it runs and then waits for its stdin,
// which never comes.
func gatewayUntilKilled([]string) error {
	c, err := Start(context.Background(), Spec{
		Command: []string{"sh", "-c", "echo runs; read x"},
		Stdin:   os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		return err
	}
	if err := c.Release(); err != nil {
		return err
	}
	_, err = c.Wait()
	return err
}

// powers are the clone flags and capabilities by which a test's helper may change
// its own mounts.
func powers() *syscall.SysProcAttr {
	a := sysProcAttr(!privileged())
	a.Cloneflags &^= unix.CLONE_NEWNET
	if a.AmbientCaps != nil {
		a.AmbientCaps = append(a.AmbientCaps, unix.CAP_SYS_RESOURCE)
	}
	return a
}

// tryStart starts a command for its error alone.
func tryStart() error {
	c, err := Start(context.Background(), Spec{Command: []string{"true"}})
	if err != nil {
		return err
	}
	return errors.Join(errors.New("Start did not fail"), c.Close())
}

func startWithoutTUN([]string) error {
	runtime.LockOSThread()
	if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""); err != nil {
		return err
	}
	return tryStart()
}

func startWithClosedTUN([]string) error {
	if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := os.WriteFile("/dev/net/tun", nil, 0); err != nil {
		return err
	}
	return tryStart()
}

// startWithoutNamespaces switches them off in the user namespace it runs in.
func startWithoutNamespaces([]string) error {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return err
	}
	return tryStart()
}
