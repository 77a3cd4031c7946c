package tundev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namedDir is where ip-netns(8) keeps namespaces by name.
const namedDir = "/run/netns"

// inNamespace runs f in the network namespace that where names: a path, the pid
// of a process in it, or a name of ip-netns(8). "" is the caller's.
func inNamespace(where string, f func() error) error {
	if where == "" {
		return f()
	}
	target, err := openNamespace(where)
	if err != nil {
		return err
	}
	defer func() { _ = target.Close() }()
	return onThread(func() error { return namespaceError(where, netns.Set(target)) }, f)
}

// onThread bends a thread to another namespace by enter, runs f on it and bends it
// back. One that cannot be bent back must not serve anybody else, and ends with its
// goroutine.
func onThread(enter, f func() error) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			failed <- err
			return
		}
		defer func() { _ = home.Close() }()
		if err = enter(); err == nil {
			err = f()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		failed <- err
	}()
	return <-failed
}

func openNamespace(where string) (netns.NsHandle, error) {
	path := where
	switch pid, err := strconv.Atoi(where); {
	case err == nil && pid > 0:
		path = fmt.Sprintf("/proc/%d/ns/net", pid)
	case !strings.Contains(where, "/"):
		path = filepath.Join(namedDir, where)
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return h, namespaceError(where, err)
	}
	return h, nil
}

// namespaceError puts what open or setns answered into a sentence.
func namespaceError(where string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("network namespace %q is not there (%w): device.netns takes a path, the pid of a process, or a name that ip netns list shows; device.create_netns makes one", where, errnoOf(err))
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EPERM):
		return fmt.Errorf("network namespace %q may not be entered (%w): it needs CAP_SYS_ADMIN; run as root, or start the gateway inside (ip netns exec)", where, errnoOf(err))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%q is no network namespace (%w): device.netns takes a path, the pid of a process, or a name that ip netns list shows", where, unix.EINVAL)
	}
	return fmt.Errorf("network namespace %q: %w", where, err)
}
