package admin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultListen is where the server listens when Options.Listen is empty.
const DefaultListen = "127.0.0.1:9090"

// Off as Options.Listen turns the server off.
const Off = "off"

const (
	unixPrefix = "unix:"
	// maxUnixPath is sizeof(sockaddr_un.sun_path) less the final NUL.
	maxUnixPath = 107
)

// Options configures a Server. The zero value listens on DefaultListen.
type Options struct {
	// Listen is an address and port, "unix:" and an absolute path, or Off.
	// "" is DefaultListen; port 0 lets the kernel choose.
	Listen string
	// PProf serves Go's profiles at /debug/pprof/.
	PProf bool
}

// Validate reports every fault in o, joined; each begins with the field's path.
func (o *Options) Validate() error {
	if _, err := o.endpoint(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// endpoint is where a server listens, parsed. At most one of addr and path is
// set; neither means Off.
type endpoint struct {
	addr netip.AddrPort
	path string // of a unix socket
}

// String gives the endpoint as the config writes it.
func (e endpoint) String() string {
	switch {
	case e.path != "":
		return unixPrefix + e.path
	case e.addr.IsValid():
		return e.addr.String()
	}
	return Off
}

// exposed reports whether other hosts may reach the endpoint.
func (e endpoint) exposed() bool { return e.addr.IsValid() && !e.addr.Addr().IsLoopback() }

func (o *Options) endpoint() (endpoint, error) {
	switch {
	case o.Listen == "":
		return parseTCP(DefaultListen)
	case o.Listen == Off:
		return endpoint{}, nil
	case strings.HasPrefix(o.Listen, unixPrefix):
		return parseUnix(strings.TrimPrefix(o.Listen, unixPrefix))
	}
	return parseTCP(o.Listen)
}

func parseUnix(path string) (endpoint, error) {
	switch {
	case !filepath.IsAbs(path):
		return endpoint{}, fmt.Errorf("%q needs an absolute path after unix:, such as unix:/run/tungate.sock", unixPrefix+path)
	case len(path) > maxUnixPath:
		return endpoint{}, fmt.Errorf("the path is %d bytes long, and the kernel takes %d; use a shorter one", len(path), maxUnixPath)
	case strings.ContainsRune(path, 0):
		return endpoint{}, errors.New("the path holds a NUL byte")
	}
	return endpoint{path: path}, nil
}

// parseTCP takes no name but localhost: a name would be looked up in DNS at each
// start, and might bring the server to another address than the one meant.
func parseTCP(s string) (endpoint, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return endpoint{}, fmt.Errorf("%q is not an address with a port; use one such as %s, or unix:/run/tungate.sock", s, DefaultListen)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return endpoint{}, fmt.Errorf("%q has no port from 0 to 65535; use an address such as %s", s, DefaultListen)
	}
	if host == "" {
		return endpoint{}, fmt.Errorf("%q names no address; write 127.0.0.1:%s for this host alone, or [::]:%s for everybody", s, port, port)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return endpoint{}, fmt.Errorf("%q is not a numeric address; use one such as %s", s, DefaultListen)
	}
	return endpoint{addr: netip.AddrPortFrom(ip.Unmap(), uint16(n))}, nil
}
