package nsrun

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lookPath finds the command as execvp(3) does: a name without a slash is tried in
// each directory of PATH, and a file that may not be executed is remembered for the
// error only (a directory that may not be searched says nothing about the name).
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, lookError(name, executable(name))
	}
	var denied error
	for _, dir := range filepath.SplitList(searchPath()) {
		if dir == "" { // POSIX: an empty element is the working directory
			dir = "."
		}
		path := filepath.Join(dir, name)
		if !strings.Contains(path, "/") {
			path = "./" + path
		}
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if _, missing := os.Stat(path); missing == nil && denied == nil && errors.Is(err, os.ErrPermission) {
			denied = lookError(path, err)
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &Error{
		Code: ExitNotFound, Err: unix.ENOENT,
		Text: fmt.Sprintf("command %q is not in PATH: install it, or name it with its directory", name),
	}
}

// searchPath falls back to glibc's default for a command without PATH.
func searchPath() string {
	if p, ok := os.LookupEnv("PATH"); ok {
		return p
	}
	return "/bin:/usr/bin"
}

// executable reports why path cannot be executed: ENOENT, EISDIR, EACCES ...
func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return cause(err)
	}
	if fi.IsDir() {
		return unix.EISDIR
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	if fi.Mode()&0o111 == 0 { // access grants root what execve does not
		return unix.EACCES
	}
	return nil
}

// lookError puts what executable said into a sentence.
func lookError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &Error{Code: ExitNotFound, Err: err, Text: fmt.Sprintf("command %q does not exist: check its path", path)}
	case errors.Is(err, unix.EISDIR):
		return &Error{Code: ExitNotExecutable, Err: err, Text: fmt.Sprintf("command %q is a directory: name a program in it", path)}
	case errors.Is(err, os.ErrPermission):
		return &Error{Code: ExitNotExecutable, Err: err, Text: fmt.Sprintf("command %q is not executable by this user: chmod +x it, or run it by its interpreter", path)}
	}
	return &Error{Code: ExitNotExecutable, Err: err, Text: fmt.Sprintf("command %q cannot be run (%v)", path, err)}
}

// execError puts what execve said into a sentence. ENOENT for a file that is there
// is about its interpreter.
func execError(name, path string, err error) error {
	e := &Error{Code: ExitNotExecutable, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT) && executable(path) == nil:
		e.Text = fmt.Sprintf("command %q needs an interpreter or loader that does not exist: check its #! line, or install its libc", name)
	case errors.Is(err, unix.ENOEXEC):
		e.Text = fmt.Sprintf("command %q is no program for this machine (%v): give a script its #! line, or get a build for this architecture", name, err)
	case errors.Is(err, unix.E2BIG):
		e.Text = fmt.Sprintf("command %q has more arguments and environment than the kernel takes (%v): pass fewer", name, err)
	default:
		return lookError(path, err)
	}
	return e
}

// dropCapabilities gives up what the set-up needed. A command of real root keeps
// all. The thread is locked and execs itself, so its own credentials suffice.
func dropCapabilities(userNS bool) error {
	if !userNS {
		return nil
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&hdr, &none[0])
}

// closeOnExec marks every fd past stderr, also those that a careless parent of the
// gateway left open in it.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// Before Linux 5.11, and under seccomp filters older than the call.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
