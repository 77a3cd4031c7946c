package tundev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isNamespaceName reports whether ip-netns(8) could give a namespace that name. All
// digits are a pid here.
func isNamespaceName(s string) bool {
	_, pid := strconv.Atoi(s)
	return s != "" && s != "." && s != ".." && !strings.Contains(s, "/") && len(s) <= 255 && pid != nil
}

// makeNamespace makes the network namespace called name as ip-netns(8) does, a bind
// mount on a file in /run/netns, and sets its loopback up. One that is there is
// left as it is. Programs that make the same one at once get the same one.
func makeNamespace(name string) error {
	if err := os.MkdirAll(namedDir, 0o755); err != nil {
		return makeError(name, err)
	}
	// ip-netns locks the directory itself, too, while it sets that up.
	dir, err := os.Open(namedDir)
	if err != nil {
		return makeError(name, err)
	}
	defer dir.Close()
	if err := lock(dir); err != nil {
		return makeError(name, err)
	}
	path := filepath.Join(namedDir, name)
	if isNamespace(path) {
		return nil
	}
	if err := shareNamedDir(); err != nil {
		return makeError(name, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return makeError(name, err)
	}
	_ = f.Close()
	if err := mountNamespace(path); err != nil {
		return errors.Join(makeError(name, err), os.Remove(path))
	}
	return nil
}

func lock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isNamespace reports whether a namespace is mounted on path.
func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// shareNamedDir makes /run/netns a shared mount, so that other mount namespaces see
// what is mounted in it.
func shareNamedDir() error {
	share := func() error { return unix.Mount("", namedDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// It is no mount yet.
	if err := unix.Mount(namedDir, namedDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return share()
}

// mountNamespace makes a namespace and mounts it on path.
func mountNamespace(path string) error {
	return onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
}

// makeError puts what the kernel answered into a sentence.
func makeError(name string, err error) error {
	switch {
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("%s is there and is no network namespace: delete it (ip netns del %s), or set device.netns to another name", filepath.Join(namedDir, name), name)
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EPERM):
		return fmt.Errorf("network namespace %q may not be made (%w): it needs CAP_SYS_ADMIN; run as root, or make it before (ip netns add %s)", name, errnoOf(err), name)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("network namespace %q cannot be made (%w): raise user.max_net_namespaces", name, unix.ENOSPC)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("network namespace %q cannot be made (%w): mount a writable %s", name, unix.EROFS, namedDir)
	}
	return fmt.Errorf("network namespace %q cannot be made: %w", name, errnoOf(err))
}
