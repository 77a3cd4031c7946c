package nsrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Child is a command in its namespace: prepared by [Start], running after Release,
// over when Wait returns. Methods may be called from several goroutines.
type Child struct {
	device  *os.File
	facts   Facts
	forward map[netip.AddrPort]netip.AddrPort
	wire    wire
	proc    *os.Process

	reaped chan struct{} // closed when proc was waited for; then:
	state  *os.ProcessState
	err    error

	closeOnce sync.Once
	closeErr  error
}

// Start prepares a namespace and in it a process that will be the command once
// Release is called. ctx bounds the preparation alone. Whoever gets a Child must
// Close it. The error is an *[Error].
func Start(ctx context.Context, spec Spec) (*Child, error) {
	spec = spec.withDefaults()
	if err := spec.validate(); err != nil {
		return nil, err
	}
	r, err := readResolv(spec.Resolv)
	if err != nil {
		return nil, err
	}
	resolv, forward := r.virtualise(spec.Device.Addresses)
	c := &Child{forward: forward, reaped: make(chan struct{})}
	userNS := !privileged()
	if err := c.spawn(&spec, userNS); err != nil {
		return nil, err
	}
	d := spec.Device
	err = c.handshake(ctx, setup{
		Name: d.Name, MTU: d.MTU, Addresses: d.Addresses, Routes: d.Routes,
		Offload: d.Offload, Resolv: resolv, UserNS: userNS,
	})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// privileged says whether this process may make the namespaces without a user
// namespace and the command is to be root's.
func privileged() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if os.Geteuid() != 0 || unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&need == need
}

// spawn starts the copy and the goroutine that waits for it.
func (c *Child) spawn(spec *Spec, userNS bool) error {
	ours, theirs, err := wirePair()
	if err != nil {
		return fail(err, "the gateway cannot talk to the command's process: %v", err)
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(fail(err, "%s cannot be opened (%v): the command's files need it", os.DevNull, cause(err)), ours.conn.Close())
	}
	defer null.Close()
	files := []*os.File{spec.Stdin, spec.Stdout, spec.Stderr, theirs}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	attr := &os.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: files, Sys: sysProcAttr(userNS)}
	started := make(chan error)
	go c.reap(append([]string{initArg}, spec.Command...), attr, started)
	if err := <-started; err != nil {
		return errors.Join(cloneError(spec, userNS, err), ours.conn.Close())
	}
	c.wire = ours
	return nil
}

func sysProcAttr(userNS bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	if userNS {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		a.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}
	}
	return a
}

// reap starts the process and waits for it, on one thread: the parent-death signal
// is sent when the thread that cloned ends, not when the process does. It ends with
// the process.
func (c *Child) reap(argv []string, attr *os.ProcAttr, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", argv, attr)
	c.proc = p
	started <- err
	if err != nil {
		return
	}
	defer close(c.reaped)
	c.state, c.err = p.Wait()
}

// handshake sends the setup and takes the device.
func (c *Child) handshake(ctx context.Context, s setup) error {
	stop := context.AfterFunc(ctx, func() {
		_ = c.wire.conn.SetDeadline(time.Unix(1, 0)) // wakes recv; a closed socket needs none
	})
	defer stop()
	var rep report
	fd := -1
	err := c.wire.send(s, -1)
	if err == nil {
		fd, err = c.wire.recv(&rep)
	}
	switch {
	case ctx.Err() != nil:
		err = fail(ctx.Err(), "the command was not started: %v", context.Cause(ctx))
	case err != nil:
		err = c.lost(err)
	case rep.Failure != nil:
		err = rep.Failure.err()
	case rep.Facts == nil || fd < 0:
		err = fail(nil, "the command's process sent no device")
	default:
		c.facts = *rep.Facts
		c.device = os.NewFile(uintptr(fd), "/dev/net/tun")
		return nil
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

// lost explains a socket that ended without a message.
func (c *Child) lost(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) {
		return fail(err, "the command's process cannot be talked to: %v", err)
	}
	<-c.reaped // its end of the socket is closed, so it is dead or dying
	return fail(err, "the process that prepares the command's namespace ended early (%v): see above for what it wrote", c.state)
}

// Device returns the device's file: a TUN with IFF_NO_PI and IFF_VNET_HDR, non-
// blocking, that lives as long as the file is open somewhere. The caller may keep
// it and close it; Close closes it too.
func (c *Child) Device() *os.File { return c.device }

// Facts describes the device.
func (c *Child) Facts() Facts { return c.facts }

// Forward maps each virtual name server in the namespace to the host's.
func (c *Child) Forward() map[netip.AddrPort]netip.AddrPort { return c.forward }

// Release lets the command start and returns when it runs, or with the *[Error]
// that kept it from running. It is called once, when the device is served.
func (c *Child) Release() error {
	if err := c.wire.send(release{Go: true}, -1); err != nil {
		return c.lost(err)
	}
	var rep report
	_, err := c.wire.recv(&rep)
	switch {
	case errors.Is(err, io.EOF): // closed by exec, or by a signal that Wait tells of
		return nil
	case err != nil:
		return fail(err, "the command's process cannot be talked to: %v", err)
	case rep.Failure != nil:
		return rep.Failure.err()
	}
	return fail(nil, "the command's process said something unexpected")
}

// Wait returns the command's exit code, 128 plus the signal's number if one ended
// it, once it is over. The error says that it could not be waited for.
func (c *Child) Wait() (int, error) {
	<-c.reaped
	if c.err != nil {
		return ExitFailure, fmt.Errorf("wait for the command: %w", c.err)
	}
	ws, ok := c.state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return c.state.ExitCode(), nil
}

// Done is closed when the command is over.
func (c *Child) Done() <-chan struct{} { return c.reaped }

// Signal sends sig to the command; os.ErrProcessDone says that it is over.
func (c *Child) Signal(sig os.Signal) error { return c.proc.Signal(sig) }

// Close kills the command if it still runs, waits for it and closes the device.
// Later calls return the first one's error.
func (c *Child) Close() error {
	c.closeOnce.Do(func() {
		c.closeErr = c.wire.conn.Close()
		if err := c.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.closeErr = errors.Join(c.closeErr, err)
		}
		<-c.reaped
		if c.device == nil {
			return
		}
		if err := c.device.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			c.closeErr = errors.Join(c.closeErr, err)
		}
	})
	return c.closeErr
}
