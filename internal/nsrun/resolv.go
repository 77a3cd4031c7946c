package nsrun

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	resolvPath = "/etc/resolv.conf"
	// maxNameservers is MAXNS of <resolv.h>: later lines are not read.
	maxNameservers = 3
	// maxResolv bounds what is read and sent of a file that has a few lines.
	maxResolv = 32 << 10
	dnsPort   = 53
)

// virtualDNS are the address before the first virtual name server, one a family.
// They lie beside the device's default addresses.
func virtualDNS(v4 bool) netip.Addr {
	if v4 {
		return netip.MustParseAddr("198.18.0.1")
	}
	return netip.MustParseAddr("fd00:18::1")
}

// resolver is what the host's resolv.conf says.
type resolver struct {
	servers []netip.Addr
	other   []string // search, domain, options and sortlist lines as they are
}

// readResolv reads the host's file. A missing file means what resolv.conf(5) says
// of one without name servers: there is one on the local machine.
func readResolv(path string) (resolver, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return parseResolv(nil), nil
	}
	if err != nil {
		return resolver{}, resolvError(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResolv))
	if err != nil {
		return resolver{}, resolvError(path, err)
	}
	return parseResolv(b), nil
}

func resolvError(path string, err error) error {
	return &Error{Code: ExitFailure, Text: fmt.Sprintf("%s cannot be read (%v): make it a file this user may read", path, cause(err)), Err: err}
}

// parseResolv reads resolv.conf(5) as glibc does: a keyword starts its line, text
// after # or ; is a comment, and an address that is none is passed over.
func parseResolv(b []byte) resolver {
	var r resolver
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxResolv+1)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(line, fields[0]) {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, ok := parseServer(fields[1]); ok && len(r.servers) < maxNameservers {
				r.servers = append(r.servers, a)
			}
		case "search", "domain", "options", "sortlist":
			r.other = append(r.other, line)
		}
	}
	if len(r.servers) == 0 {
		r.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return r
}

func parseServer(s string) (netip.Addr, bool) {
	if i := strings.IndexAny(s, "#;"); i >= 0 {
		s = s[:i]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	a = a.Unmap()
	if a.IsUnspecified() { // "this host", as the resolver has it
		if a.Is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
		}
		return netip.IPv6Loopback(), true
	}
	return a, true
}

// virtualise returns the command's resolv.conf, in which each server has a virtual
// address that the device's routes lead to, and the way back from those to the
// servers. own are the device's addresses, which no server may have.
func (r resolver) virtualise(own []netip.Prefix) (string, map[netip.AddrPort]netip.AddrPort) {
	taken := map[netip.Addr]bool{}
	v4 := false
	for _, p := range own {
		taken[p.Addr()] = true
		v4 = v4 || p.Addr().Is4()
	}
	var file strings.Builder
	file.WriteString("# Made for this command: each address stands for a name server of the host.\n")
	forward := make(map[netip.AddrPort]netip.AddrPort, len(r.servers))
	virtual := virtualDNS(v4 || len(own) == 0)
	for _, server := range r.servers {
		for virtual = virtual.Next(); taken[virtual]; {
			virtual = virtual.Next()
		}
		fmt.Fprintf(&file, "# %s\nnameserver %s\n", server, virtual)
		forward[netip.AddrPortFrom(virtual, dnsPort)] = netip.AddrPortFrom(server, dnsPort)
	}
	for _, line := range r.other {
		file.WriteString(line + "\n")
	}
	return file.String(), forward
}

// coverDir is where the file is made: it exists wherever a TUN can be opened, and
// nothing below it is needed while it is covered.
const coverDir = "/dev"

// mountResolv covers /etc/resolv.conf in this mount namespace. The file lives on a
// tmpfs of its own, which is mounted over coverDir just long enough to make it:
// the host's file systems may be read-only and keep no trace. (A memfd cannot be
// bind-mounted: it is on a mount of the kernel's.)
func mountResolv(content string) error {
	if err := unix.Mount("tmpfs", coverDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	const file = coverDir + "/resolv.conf"
	err := os.WriteFile(file, []byte(content), 0o644)
	if err == nil {
		err = os.Chmod(file, 0o644) // whatever the umask is
	}
	if err == nil {
		err = unix.Mount(file, resolvPath, "", unix.MS_BIND, "")
	}
	// The bind mount keeps the file system alive.
	if e := unix.Unmount(coverDir, unix.MNT_DETACH); e != nil {
		err = errors.Join(err, fmt.Errorf("uncover %s: %w", coverDir, e))
	}
	return err
}
