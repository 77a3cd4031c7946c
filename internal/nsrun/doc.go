// Package nsrun runs a program in a fresh network namespace whose only way out is
// a TUN device, and hands the device to the caller, who stays outside and serves
// it. Nothing of the host is changed, and no root is needed where unprivileged
// user namespaces are allowed.
//
// # Theory of operation
//
// A namespace is entered by a process, not by a goroutine: the Go runtime has
// threads before main starts, and setns of a user namespace refuses a process
// with threads. So [Start] runs the program's own binary once more (/proc/self/exe)
// with clone flags; the copy finds its argv[0] in [MaybeInit], the first call of
// main, prepares the namespace from inside and then becomes the command by
// execve. One process, one pid, no helper that stays behind.
//
//	gateway                                copy, then command
//	-------                                ------------------
//	Start: clone NEWNET|NEWNS(|NEWUSER) ─► MaybeInit: die with the gateway
//	       setup{device, resolv.conf}   ─► look the command up; lo up; TUN with
//	                                       addresses and routes; resolv.conf
//	       Device, Facts                ◄─ facts + the device's fd (SCM_RIGHTS)
//	serve the device
//	Release: go                         ─► drop capabilities, close fds, execve
//	       end of file: it runs         ◄─ (the socket closes on exec)
//	       or failure{code, sentence}   ◄─ execve failed
//	Wait: exit code                     ◄─ exit
//
// The socket is a SOCK_SEQPACKET pair, so a message is a packet and needs no
// framing. Its end of file is the protocol's other half: the copy leaves when the
// gateway closes it, the gateway learns by it that the command was started.
//
// # Privileges
//
// With real root (CAP_SYS_ADMIN and CAP_NET_ADMIN) no user namespace is made, and
// the command keeps root's powers. Otherwise the user namespace maps the user's
// own uid and gid to themselves; the two capabilities that the set-up needs pass
// the first exec as ambient ones and are gone before the second, so the command
// runs as the same user as ever, with none. A set-user-ID program does not gain
// root there, as root is not mapped; one with file capabilities gains them over
// this namespace alone. (A root without the two capabilities, as containers have,
// gets a user namespace too, and is root over it.)
//
// # What the command sees
//
// lo, and one device (tun0) with an address and the default route of each family.
// ping works without privilege (net.ipv4.ping_group_range). /etc/resolv.conf is
// covered by one that names virtual addresses on the device, one for each name
// server of the host; [Child.Forward] says which is which, so that a server on the
// host's loopback is reached as well. Mounts of the host still arrive (rslave),
// the command's own do not leave. /sys is the host's: covering it would take away
// /sys/fs/cgroup.
//
// # Ends
//
// The command dies with the gateway (PR_SET_PDEATHSIG, SIGKILL), whatever killed
// it. The signal is bound to the thread that cloned, so that thread is locked in
// the one goroutine of a [Child] until the command has been waited for. Processes
// the command left behind keep the namespace, with a device that nobody serves.
package nsrun
