package nsrun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

// initArg is argv[0] of the copy, and wireFD its end of the socket: the first of
// the extra files.
const (
	initArg = "nsrun-init"
	wireFD  = 3
)

// MaybeInit does nothing in a program started by a person. In the copy that
// [Start] makes it prepares the namespace, becomes the command and never returns.
// main calls it first, before it reads flags or opens anything.
func MaybeInit() {
	if len(os.Args) < 2 || os.Args[0] != initArg {
		return
	}
	// Parent-death signal, capabilities and exec are matters of one thread.
	runtime.LockOSThread()
	w, err := newWire(os.NewFile(wireFD, "nsrun"))
	if err != nil {
		fmt.Fprintln(os.Stderr, initArg+" is the gateway's own: it is not for a person to run")
		os.Exit(2)
	}
	err = runInit(w, os.Args[1:])
	if err := w.send(report{Failure: failureOf(err)}, -1); err != nil {
		os.Exit(ExitFailure) // nobody listens any more
	}
	os.Exit(ExitCode(err))
}

// runInit returns only if the command could not be started.
func runInit(w wire, command []string) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fail(err, "the command cannot be tied to the gateway's life (%v)", err)
	}
	// A gateway that died before the line above has closed the socket.
	var s setup
	if _, err := w.recv(&s); err != nil {
		return fail(err, "the gateway's instructions did not arrive (%v)", err)
	}
	path, err := lookPath(command[0])
	if err != nil {
		return err
	}
	if err := prepare(w, s); err != nil {
		return err
	}
	var r release
	if _, err := w.recv(&r); err != nil || !r.Go {
		return fail(err, "the gateway did not let the command start")
	}
	if err := dropCapabilities(s.UserNS); err != nil {
		return fail(err, "the capabilities of the set-up cannot be given up (%v)", err)
	}
	if err := closeOnExec(); err != nil {
		return fail(err, "the gateway's files cannot be kept from the command (%v)", err)
	}
	return execError(command[0], path, syscall.Exec(path, command, os.Environ()))
}

// prepare makes the namespace what the package's doc says, and tells the gateway.
func prepare(w wire, s setup) error {
	facts := &Facts{UserNS: s.UserNS}
	quietInterfaces()
	facts.Notes = append(facts.Notes, allowPing(s.UserNS)...)
	if err := setUp("lo"); err != nil {
		return failNS(s.UserNS, "set lo up", err)
	}
	dev, err := createDevice(s)
	if err != nil {
		return fail(err, "%v", err)
	}
	facts.Name, facts.MTU, facts.Features = dev.Name(), dev.MTU(), dev.Features()
	facts.Notes = append(facts.Notes, dev.Notes()...)
	if err := facts.lookAt(facts.Name); err != nil {
		return fail(err, "the new device cannot be seen: %v", err)
	}
	// Mounts of the host may arrive (and leave: a slave does not keep a medium
	// busy), none of ours travels to it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return failNS(s.UserNS, "take its mounts apart from the host's", err)
	}
	notes, err := coverResolv(s)
	if err != nil {
		return err
	}
	facts.Notes = append(facts.Notes, notes...)
	return sendDevice(w, dev, facts)
}

// lookAt fills in what the namespace says of the interface.
func (f *Facts) lookAt(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	f.Index = ifi.Index
	addrs, err := ifi.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			f.Addresses = append(f.Addresses, p)
		}
	}
	return err
}

func createDevice(s setup) (*tundev.Device, error) {
	o := tundev.Options{Name: s.Name, MTU: s.MTU, Queues: 1, Addresses: s.Addresses, Offload: s.Offload}
	for _, r := range s.Routes {
		if r.Addr().Is4() || haveIPv6() { // tundev notes the missing address
			o.Routes = append(o.Routes, r)
		}
	}
	return tundev.Create(o)
}

// coverResolv leaves a host without the file as it is: there is nothing to mount
// over, and the directory is not ours to write to.
func coverResolv(s setup) ([]string, error) {
	_, err := os.Stat(resolvPath)
	if errors.Is(err, os.ErrNotExist) {
		return []string{"there is no " + resolvPath + " to put the name servers in, so the command resolves no names: make an empty one"}, nil
	}
	if err == nil {
		err = mountResolv(s.Resolv)
	}
	if err != nil {
		return nil, failNS(s.UserNS, "give the command its own "+resolvPath, err)
	}
	return nil, nil
}

// sendDevice passes the fd on. The device itself is not closed: exec ends this
// program's goroutines and its copy of the fd at once.
func sendDevice(w wire, dev *tundev.Device, facts *Facts) error {
	err := dev.Control(func(fd int) error { return w.send(report{Facts: facts}, fd) })
	if err != nil {
		return fail(err, "the device cannot be passed on (%v)", err)
	}
	return nil
}

// setUp sets the interface up by ioctl, for which lo needs no netlink.
func setUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

func haveIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf")
	return err == nil
}

// quietInterfaces keeps the kernel from talking on the new device by itself: no
// link-local address means no multicast reports and no router solicitations, so
// that what the gateway sees is the command's. It also undoes disable_ipv6 of the
// host. A kernel without IPv6 has none of these files, a container may have them
// read-only: all of that is a nicety.
func quietInterfaces() {
	for _, kv := range [][2]string{
		{"all/disable_ipv6", "0"},
		{"default/disable_ipv6", "0"},
		{"default/accept_ra", "0"},
		{"default/addr_gen_mode", "1"},
	} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+kv[0], []byte(kv[1]), 0)
	}
}

// allowPing opens ICMP sockets to every group that exists in the namespace, since a
// ping may come without CAP_NET_RAW. The kernel refuses groups that are not mapped,
// hence the narrow range.
func allowPing(userNS bool) []string {
	groups := "0 2147483647"
	if userNS {
		groups = fmt.Sprintf("%d %d", os.Getgid(), os.Getgid())
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0); err != nil {
		return []string{fmt.Sprintf("ping needs root in the command, since net.ipv4.ping_group_range cannot be set (%v)", cause(err))}
	}
	return nil
}
