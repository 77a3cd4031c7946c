package nsrun

import (
	"errors"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

// Spec says what to run and what it shall find. Only Command is required.
type Spec struct {
	// Command is the program, looked up in the PATH of Env unless it has a
	// slash, and its arguments.
	Command []string
	// Dir is the command's working directory; "" is the caller's.
	Dir string
	// Env is the command's environment; nil is the caller's.
	Env []string
	// Stdin, Stdout and Stderr are the command's files; nil is /dev/null.
	Stdin, Stdout, Stderr *os.File

	// Device describes the device. Zero values: the name is tun0, the MTU
	// tundev.DefaultMTU, the addresses 198.18.0.1/15 and, where the MTU allows
	// IPv6, fd00:18::1/64, the routes a default route for each family that has
	// an address.
	Device tundev.Options

	// Resolv is the file the command's resolv.conf is derived from; "" is
	// /etc/resolv.conf.
	Resolv string
}

// Facts describe the device that was made.
type Facts struct {
	Name     string
	MTU      tundev.MTU
	Index    int // the interface's index in its namespace
	Features tundev.Features
	// Addresses are those that the device has, which may be fewer than asked
	// for: Notes says why.
	Addresses []netip.Prefix
	// UserNS says that the command runs in a user namespace of its own.
	UserNS bool
	// Notes lists, a sentence each, what could not be done but does not keep
	// the command from running.
	Notes []string
}

// Exit codes of what fails before the command runs, as POSIX has them for a shell
// (XCU 2.8.2).
const (
	ExitFailure       = 1
	ExitUsage         = 2
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// Error is a failure to start the command. Its text is one sentence that says
// what to do.
type Error struct {
	Code int // the exit code a caller should pass on
	Text string
	Err  error // the cause, usually a syscall.Errno; may be nil
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns the exit code that err asks for: 0 for nil, the Code of an
// [Error], else 1.
func ExitCode(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return ExitFailure
}

// withDefaults returns s with every zero value replaced.
func (s Spec) withDefaults() Spec {
	d := &s.Device
	if d.Name == "" {
		d.Name = "tun0"
	}
	if d.MTU == 0 {
		d.MTU = tundev.DefaultMTU
	}
	if d.Addresses == nil {
		d.Addresses = []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}
		if d.MTU >= tundev.MinMTUv6 {
			d.Addresses = append(d.Addresses, netip.MustParsePrefix("fd00:18::1/64"))
		}
	}
	if d.Routes == nil {
		d.Routes = defaultRoutes(d.Addresses)
	}
	if s.Env == nil {
		s.Env = os.Environ()
	}
	if s.Resolv == "" {
		s.Resolv = resolvPath
	}
	return s
}

// defaultRoutes returns a default route for each family in addrs.
func defaultRoutes(addrs []netip.Prefix) []netip.Prefix {
	var v4, v6 bool
	for _, a := range addrs {
		v4 = v4 || a.Addr().Is4()
		v6 = v6 || a.Addr().Is6()
	}
	var routes []netip.Prefix
	if v4 {
		routes = append(routes, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if v6 {
		routes = append(routes, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return routes
}

// validate reports the first fault in s.
func (s *Spec) validate() error {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return &Error{Code: ExitUsage, Text: "there is no command to run: name one after --"}
	}
	if err := s.Device.Validate(); err != nil {
		faults := strings.ReplaceAll(err.Error(), "\n", "; ")
		return &Error{Code: ExitUsage, Text: "the device cannot be as asked for: " + faults, Err: err}
	}
	return s.validateDir()
}

// validateDir asks first, since a failed chdir between clone and exec looks like
// a failed exec.
func (s *Spec) validateDir() error {
	if s.Dir == "" {
		return nil
	}
	fi, err := os.Stat(s.Dir)
	switch {
	case err == nil && !fi.IsDir():
		err = unix.ENOTDIR
	case err == nil:
		err = unix.Access(s.Dir, unix.X_OK)
	}
	if err != nil {
		return fail(err, "the directory %q cannot be entered (%v): choose another", s.Dir, cause(err))
	}
	return nil
}
