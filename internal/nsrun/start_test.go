package nsrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

const hostResolv = "# of the host\nnameserver 192.0.2.53\nsearch example.net\nnameserver fe80::1%eth0\noptions ndots:2 edns0\n"

func TestCommandSees(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte(hostResolv), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := run(t, Spec{Command: helper("observe"), Resolv: resolv, Device: tundev.Options{MTU: 9000}})
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	o := mustJSON[observation](t, out)
	equal(t, "links", o.Links, []string{"1 lo up=true mtu=65536", "2 tun0 up=true mtu=9000"})
	equal(t, "addresses", o.Addrs, []string{"lo 127.0.0.1/8", "lo ::1/128", "tun0 198.18.0.1/15", "tun0 fd00:18::1/64"})
	equal(t, "default routes", o.Routes, []string{"0.0.0.0/0 dev 2", "::/0 dev 2"})
	equal(t, "hidden devices", o.Hidden, nil)
	const want = "# Made for this command: each address stands for a name server of the host.\n" +
		"# 192.0.2.53\nnameserver 198.18.0.2\n# fe80::1%eth0\nnameserver 198.18.0.3\n" +
		"search example.net\noptions ndots:2 edns0\n"
	if o.Resolv != want {
		t.Errorf("resolv.conf is\n%s\nwant\n%s", o.Resolv, want)
	}
	if host, err := os.ReadFile(resolvPath); err == nil && string(host) == want {
		t.Error("the host's resolv.conf was changed")
	}
	if o.UID != os.Getuid() || o.GID != os.Getgid() {
		t.Errorf("runs as %d:%d, want %d:%d", o.UID, o.GID, os.Getuid(), os.Getgid())
	}
	if o.Ping != "" || o.Ping6 != "" {
		t.Errorf("ping sockets are refused: %q, %q", o.Ping, o.Ping6)
	}
	o.checkPowers(t)
}

// checkPowers: root keeps what it had, a user gains nothing.
func (o *observation) checkPowers(t *testing.T) {
	t.Helper()
	own, err := status("self")
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	want := map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "NoNewPrivs": "0", "SigBlk": none}
	if privileged() {
		want["CapPrm"], want["CapEff"] = own["CapPrm"], own["CapEff"]
	}
	for k, v := range want {
		if o.Status[k] != v {
			t.Errorf("%s is %s, want %s", k, o.Status[k], v)
		}
	}
	// What this process was started with may stay: nohup and & ignore SIGHUP and
	// SIGINT, glibc's posix_spawn the two signals it keeps for itself.
	ignored, err := strconv.ParseUint(o.Status["SigIgn"], 16, 64)
	before, ownErr := strconv.ParseUint(own["SigIgn"], 16, 64)
	if err != nil || ownErr != nil || ignored&^before != 0 {
		t.Errorf("signals ignored: %s, and %s before", o.Status["SigIgn"], own["SigIgn"])
	}
}

// TestNoFiles leaves a file for the command that whoever started the gateway forgot
// to mark. The shell opens none of its own while it expands the pattern.
func TestNoFiles(t *testing.T) {
	leak, err := unix.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	out, _ := run(t, Spec{Command: []string{"sh", "-c", "for f in 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do [ ! -e /proc/$$/fd/$f ] || readlink /proc/$$/fd/$f; done"}})
	if out != "" {
		t.Errorf("the command finds %q", out)
	}
}

func TestPassThrough(t *testing.T) {
	dir := t.TempDir()
	r, w := pipe(t)
	if _, err := w.WriteString("said on stdin"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	args := []string{"a b", "", "--flag", "$x", "\xff"}
	out, _ := run(t, Spec{Command: helper(append([]string{"observe"}, args...)...), Dir: dir, Env: []string{"ONLY=this"}, Stdin: r})
	o := mustJSON[observation](t, out)
	args[4] = "\ufffd" // as JSON has it
	equal(t, "args", o.Args, args)
	equal(t, "env", slices.DeleteFunc(o.Env, func(s string) bool { return strings.HasPrefix(s, "PWD=") }), []string{"ONLY=this"})
	if o.Dir != dir || o.Stdin != "said on stdin" {
		t.Errorf("dir %q, stdin %q", o.Dir, o.Stdin)
	}
}

func TestFacts(t *testing.T) {
	c := start(t, Spec{Command: []string{"true"}, Device: tundev.Options{
		Name: "gate7", MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")},
		Offload: tundev.Offload{TSO4: tundev.Off, TSO6: tundev.Off},
	}})
	f := c.Facts()
	equal(t, "addresses", f.Addresses, []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")})
	if f.Name != "gate7" || f.MTU != 1400 || f.Index != 2 || f.Features.TSO4 || f.UserNS == privileged() || len(f.Notes) != 0 {
		t.Errorf("facts: %+v", f)
	}
	for virtual := range c.Forward() {
		if virtual.Addr() == netip.MustParseAddr("198.18.0.2") {
			t.Error("a name server has the device's own address")
		}
	}
}

func TestExitCodes(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 7": 7, "exit 255": 255,
		"kill -9 $$": 128 + 9, "kill -TERM $$": 128 + 15,
	} {
		if _, code := run(t, Spec{Command: []string{"sh", "-c", script}}); code != want {
			t.Errorf("%s: exit code %d, want %d", script, code, want)
		}
	}
}

// file makes a file for TestNotRun.
func file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNotRun(t *testing.T) {
	plain := file(t, "plain", "#!/bin/sh\n", 0o644)
	for _, c := range []struct {
		name string
		spec Spec
		code int
		says string
	}{
		{"nothing", Spec{}, 2, "no command"},
		{"name", Spec{Command: []string{"no-such-command"}}, 127, `"no-such-command" is not in PATH`},
		{"path", Spec{Command: []string{"/no/such/command"}}, 127, "does not exist"},
		{"below a file", Spec{Command: []string{plain + "/x"}}, 127, "does not exist"},
		{"mode", Spec{Command: []string{plain}}, 126, "chmod +x"},
		{"mode, by PATH", Spec{Command: []string{"plain"}, Env: []string{"PATH=" + filepath.Dir(plain)}}, 126, "chmod +x"},
		{"directory", Spec{Command: []string{"/etc"}}, 126, "is a directory"},
		{"interpreter", Spec{Command: []string{file(t, "i", "#!/no/such/sh\n", 0o755)}}, 126, "interpreter"},
		{"no magic", Spec{Command: []string{file(t, "m", "true\n", 0o755)}}, 126, "#! line"},
		{"dir a file", Spec{Command: []string{"true"}, Dir: plain}, 1, "cannot be entered (not a directory)"},
		{"no dir", Spec{Command: []string{"true"}, Dir: "/no/such/dir"}, 1, `"/no/such/dir" cannot be entered`},
		{"long", Spec{Command: []string{"true", strings.Repeat("x", 1<<18)}}, 126, "more arguments"},
		{"mtu", Spec{Command: []string{"true"}, Device: tundev.Options{MTU: 1}}, 2, "mtu: 1"},
		{"device", Spec{Command: []string{"true"}, Device: tundev.Options{Name: "a/b"}}, 1, "a/b"},
		{"resolv", Spec{Command: []string{"true"}, Resolv: "/etc"}, 1, "/etc cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := openFDs(t)
			child, err := Start(t.Context(), c.spec)
			if err == nil {
				err = errors.Join(child.Release(), child.Close())
			}
			sameFDs(t, before)
			if ExitCode(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Fatalf("exit code %d, want %d: %v", ExitCode(err), c.code, err)
			}
			oneSentence(t, err)
		})
	}
}

// TestRefused starts commands where something the package needs is taken away.
func TestRefused(t *testing.T) {
	t.Run("no-tun", func(t *testing.T) { refused(t, powers(), "no-tun", "/dev/net/tun is missing") })
	if !privileged() { // root opens anything
		t.Run("closed-tun", func(t *testing.T) { refused(t, powers(), "closed-tun", "chmod 0666 /dev/net/tun") })
	}
	t.Run("no-namespaces", func(t *testing.T) {
		a := sysProcAttr(true)
		a.Cloneflags = unix.CLONE_NEWUSER
		a.AmbientCaps = []uintptr{unix.CAP_SYS_RESOURCE}
		says := "user.max_user_namespaces"
		if os.Getuid() == 0 { // root needs no user namespace, even without power it says so
			a.UidMappings[0].ContainerID, a.GidMappings[0].ContainerID = 1000, 1000
		}
		refused(t, a, "no-namespaces", says)
	})
}

func refused(t *testing.T, a *syscall.SysProcAttr, name, says string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", helper(name)[1:]...)
	cmd.SysProcAttr = a
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	text := strings.TrimSuffix(stderr.String(), "\n")
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != ExitFailure || !strings.Contains(text, says) {
		t.Fatalf("%v: %q, want exit code 1 and %q", err, text, says)
	}
	oneSentence(t, errors.New(text))
}

// TestFirstFrame proves that what arrives first at the device is the command's.
func TestFirstFrame(t *testing.T) {
	for _, c := range []struct {
		to  string
		dst []byte // at this offset behind the vnet header
		off int
	}{
		{"192.0.2.9:9", []byte{192, 0, 2, 9}, 16},
		{"[fd00::9]:9", netip.MustParseAddr("fd00::9").AsSlice(), 24},
	} {
		ch := start(t, Spec{Command: helper("send", c.to, "hello"), Stderr: os.Stderr})
		if err := ch.Release(); err != nil {
			t.Fatal(err)
		}
		if err := ch.Device().SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2000)
		n, err := ch.Device().Read(b)
		if err != nil {
			t.Fatal(err)
		}
		const vnetHdr = 10
		frame := b[vnetHdr:n]
		if len(frame) < 33 || !bytes.Equal(frame[c.off:c.off+len(c.dst)], c.dst) || !bytes.HasSuffix(frame, []byte("hello")) {
			t.Errorf("to %s: the first frame is % x", c.to, frame)
		}
	}
}

// TestNotBeforeRelease: until then the process is the copy, and closing it leaves
// neither process nor effect.
func TestNotBeforeRelease(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	c := start(t, Spec{Command: []string{"touch", mark}})
	pid := strconv.Itoa(c.proc.Pid)
	cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || !bytes.HasPrefix(cmdline, []byte(initArg+"\x00touch\x00")) {
		t.Fatalf("runs %q, %v", cmdline, err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(); code == 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
	for _, path := range []string{"/proc/" + pid, mark} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

func TestSignal(t *testing.T) {
	r, w := pipe(t)
	in, hold := pipe(t) // keeps the command waiting
	c := start(t, Spec{Command: []string{"sh", "-c", `trap "exit 9" TERM; echo ready; while :; do read x; done`}, Stdin: in, Stdout: w})
	_ = hold
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if line := make([]byte, 6); readFull(r, line) != nil || string(line) != "ready\n" {
		t.Fatalf("printed %q", line)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(); code != 9 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func readFull(r *os.File, b []byte) error {
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

// TestDiesWithGateway kills the gateway by the one signal it cannot answer. The
// command's end shows in its stdout, which nobody else holds.
func TestDiesWithGateway(t *testing.T) {
	r, w := pipe(t)
	in, _ := pipe(t)
	gw := exec.Command("/proc/self/exe", helper("gateway")[1:]...)
	gw.Stdin, gw.Stdout, gw.Stderr = in, w, os.Stderr
	if err := gw.Start(); err != nil {
		t.Fatal(err)
	}
	if line := make([]byte, 5); readFull(r, line) != nil || string(line) != "runs\n" {
		t.Fatalf("printed %q", line)
	}
	if err := gw.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = gw.Wait()
	if rest := readAll(t, r, w); rest != "" {
		t.Errorf("printed %q", rest)
	}
}

func TestStartCancelled(t *testing.T) {
	before := openFDs(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := Start(ctx, Spec{Command: []string{"true"}})
	if c != nil || !errors.Is(err, context.Canceled) || ExitCode(err) != ExitFailure {
		t.Errorf("got %v, %v", c, err)
	}
	oneSentence(t, err)
	sameFDs(t, before)
}

// TestInitByHand: the hidden name is no command.
func TestInitByHand(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initArg, "true"}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "not for a person") {
		t.Errorf("%v: %s", err, out)
	}
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
