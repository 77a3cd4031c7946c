package nsrun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fail returns an [Error] with exit code 1.
func fail(err error, format string, args ...any) error {
	return &Error{Code: ExitFailure, Text: fmt.Sprintf(format, args...), Err: err}
}

// cause strips the operation and path that a sentence already names.
func cause(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}

// failNS explains a refusal inside the namespace. In a user namespace that was
// granted but gives no power the reason is the distribution's policy.
func failNS(userNS bool, what string, err error) error {
	if userNS && denied(err) {
		return fail(err, "the user namespace may not %s (%v): %s", what, cause(err), userNSHint())
	}
	return fail(err, "the new namespace cannot %s: %v", what, err)
}

// cloneError explains why the copy could not be started.
func cloneError(s *Spec, userNS bool, err error) error {
	switch {
	case errors.Is(err, unix.E2BIG):
		return &Error{Code: ExitNotExecutable, Err: err, Text: fmt.Sprintf("command %q has more arguments and environment than the kernel takes (%v): pass fewer", s.Command[0], cause(err))}
	case userNS && (denied(err) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS)):
		return fail(err, "this user may not make a user namespace (%v): %s", cause(err), userNSHint())
	case errors.Is(err, unix.EINVAL):
		return fail(err, "the kernel makes no such namespace (%v): it needs CONFIG_NET_NS and, without root, CONFIG_USER_NS", cause(err))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EPERM):
		return fail(err, "the kernel refuses a new namespace (%v): raise user.max_net_namespaces and user.max_mnt_namespaces, or allow it to the container (--cap-add SYS_ADMIN --cap-add NET_ADMIN)", cause(err))
	}
	return fail(err, "the command's process cannot be started: %v", err)
}

func denied(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// userNSHint names the switch that forbids user namespaces, as far as this host
// shows it, and the way around.
func userNSHint() string {
	const orRoot = ", or run as root"
	for _, k := range []struct{ file, bad, do string }{
		{"kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=16384"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		b, err := os.ReadFile("/proc/sys/" + k.file)
		if err == nil && strings.TrimSpace(string(b)) == k.bad {
			return k.do + orRoot
		}
	}
	return "allow it (kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0, the container's seccomp profile)" + orRoot
}
