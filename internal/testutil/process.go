package testutil

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// outputLimit is how many of a process's last bytes are kept.
const outputLimit = 256 << 10

// Output collects what a process prints, the newest outputLimit bytes of it. It
// may be read while the process writes.
type Output struct {
	mu  sync.Mutex
	buf []byte
}

// Write appends p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, p...)
	if over := len(o.buf) - outputLimit; over > 0 {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	return len(p), nil
}

// String returns what was collected so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}

// Process is a started program. It dies with this process.
type Process struct {
	PID    int
	Stdout *Output // nil when the command had its own
	Stderr *Output // nil when the command had its own

	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid iff done is closed
}

// Start runs cmd inside the namespace, in a process group of its own. Outputs the
// caller did not set are collected.
func (n *Namespace) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		p.Stdout = &Output{}
		cmd.Stdout = p.Stdout
	}
	if cmd.Stderr == nil {
		p.Stderr = &Output{}
		cmd.Stderr = p.Stderr
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	if err := n.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", cmd.Path, n.Name, err)
	}
	p.PID = cmd.Process.Pid
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run runs cmd inside the namespace to its end, at most for timeout, and returns
// what it printed.
func (n *Namespace) Run(timeout time.Duration, cmd *exec.Cmd) (stdout, stderr string, err error) {
	p, err := n.Start(cmd)
	if err != nil {
		return "", "", err
	}
	err = p.Wait(timeout)
	if errors.Is(err, ErrStillRunning) {
		err = fmt.Errorf("%s: not done after %v", cmd.Path, timeout)
		p.Kill()
	}
	if p.Stdout != nil {
		stdout = p.Stdout.String()
	}
	if p.Stderr != nil {
		stderr = p.Stderr.String()
	}
	return stdout, stderr, err
}

// ErrStillRunning says that a process outlived a deadline.
var ErrStillRunning = errors.New("testutil: still running")

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive reports whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end and returns what exec.Cmd.Wait returned, or
// ErrStillRunning after timeout.
func (p *Process) Wait(timeout time.Duration) error {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.done:
		return p.err
	case <-t.C:
		return ErrStillRunning
	}
}

// ExitCode is the exit status, 128+n after signal n, -1 while running.
func (p *Process) ExitCode() int {
	if p.Alive() {
		return -1
	}
	st := p.cmd.ProcessState
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}

// Signal sends sig to the process itself.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process and its group, and returns when it is gone.
func (p *Process) Kill() {
	if p.Alive() {
		_ = syscall.Kill(-p.PID, syscall.SIGKILL)
	}
	<-p.done
}

// Stop asks by SIGTERM, waits up to timeout, then kills.
func (p *Process) Stop(timeout time.Duration) error {
	if p.Alive() {
		_ = p.Signal(syscall.SIGTERM)
	}
	err := p.Wait(timeout)
	if errors.Is(err, ErrStillRunning) {
		p.Kill()
	}
	return err
}

// RSS is the process's resident memory in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("statm of %d: %q", pid, b)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// userHZ is the unit of times in /proc/PID/stat, fixed for user space on Linux.
const userHZ = 100

// CPU is the processor time the process took so far, user and system.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold blanks; fields count from behind it:
	// utime and stime are fields 14 and 15 of proc(5).
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("stat of %d: %q", pid, b)
	}
	var ticks int64
	for _, v := range f[11:13] {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// FDs is how many file descriptors the process holds.
func FDs(pid int) (int, error) {
	e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(e), err
}

// Output runs a program in the namespace and returns what it printed.
func (n *Namespace) Output(name string, args ...string) (string, error) {
	const bound = 20 * time.Second // for tools that answer at once
	stdout, stderr, err := n.Run(bound, exec.Command(name, args...))
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr))
	}
	return stdout, err
}

// Pids lists the processes in the namespace, this one aside.
func (n *Namespace) Pids() ([]int, error) {
	out, err := exec.Command("ip", "netns", "pids", n.Name).Output()
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(out)) {
		pid, err := strconv.Atoi(f)
		if err == nil && pid != os.Getpid() { // a thread of ours may be on a visit
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// KillAll ends every process left in the namespace, and names them.
func (n *Namespace) KillAll() (left string, err error) {
	pids, err := n.Pids()
	for _, pid := range pids {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left += fmt.Sprintf("%d (%s) ", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte(" ")))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return left, err
}
