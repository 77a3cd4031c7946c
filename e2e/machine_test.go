package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// patient is for what an emulated processor does, on a machine that is busy with
// something else.
const patient = 2 * time.Minute

// machine runs shell scripts of one line in a guest of a segment, which has one
// network card called eth0, busybox and the scripts of testdata/guest, and no
// setting whatever.
type machine func(script string) (output string, err error)

// sh wants a script to succeed and returns what it printed.
func (run machine) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := run(script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(out)
}

// up configures eth0 by what the network says and returns the DHCP lease.
func (run machine) up() (lease string, err error) {
	if _, err = run("/up"); err == nil {
		lease, err = run("cat /lease")
	}
	return strings.TrimSpace(lease), err
}

// newMachineRoot makes the file system of a machine.
func newMachineRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.CopyFS(root, os.DirFS("testdata/guest")))
	for _, dir := range []string{"bin", "dev", "etc", "proc"} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	b, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	applets, err := exec.Command(busybox, "--list").Output()
	must(t, err)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			must(t, os.Symlink("busybox", filepath.Join(root, "bin", applet)))
		}
	}
	return root
}

// kernelMachine is a machine that shares the host's kernel: a network namespace, a
// veth pair and a root directory.
func kernelMachine(t *testing.T, s *segment, mac string) machine {
	t.Helper()
	n, err := testutil.NewNamespace("guest")
	must(t, err)
	t.Cleanup(func() {
		if left, err := n.KillAll(); err != nil || left != "" {
			t.Errorf("left in %s: %s%v", n.Name, left, err)
		}
		must(t, n.Close())
	})
	must(t, testutil.Tune(n))
	port := s.nextPort()
	must(t, s.lab.Client.IP(fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %s", port, mac, n.Name)))
	s.plug(t, port)

	root := newMachineRoot(t)
	// Mounts of its own, which are gone with the process.
	const enter = `mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" /bin/sh -c "$1"`
	return func(script string) (string, error) {
		cmd := exec.Command("unshare", "--mount", "sh", "-c", enter, root, "exec 2>&1; "+script)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin:/bin"}
		out, stderr, err := n.Run(patient, cmd)
		if err != nil {
			err = fmt.Errorf("%w: %s%s", err, out, stderr)
		}
		return out, err
	}
}

func virtioMachine(t *testing.T, s *segment, mac string) machine {
	t.Helper()
	return virtualMachine(t, s, "virtio-net-pci,mac="+mac, "virtio_pci virtio_net")
}

func vmxnetMachine(t *testing.T, s *segment, mac string) machine {
	t.Helper()
	return virtualMachine(t, s, "vmxnet3,mac="+mac, "vmxnet3")
}

// virtualMachine is a PC that QEMU emulates to the last instruction, with Debian's
// kernel for clouds, a network card on a TAP device and the drivers for that card.
func virtualMachine(t *testing.T, s *segment, card, drivers string) machine {
	t.Helper()
	port := s.nextPort()
	must(t, s.lab.Client.IP("tuntap add dev "+port+" mode tap vnet_hdr"))
	s.plug(t, port)
	console := filepath.Join(t.TempDir(), "console")
	cmd := exec.Command("qemu-system-x86_64",
		"-machine", "q35,accel=tcg", "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		// With room for a second processor, QEMU keeps the memory barriers that
		// the first and its devices need, which before 8.1 it left out else: the
		// device misses that there is something to send and sleeps for ever.
		"-smp", "1,maxcpus=2",
		"-kernel", filepath.Join(guestKernel, "vmlinuz"), "-initrd", initialRAMDisk(t),
		"-append", fmt.Sprintf(`console=ttyS0 panic=-1 "drivers=%s"`, drivers),
		"-serial", "file:"+console, "-serial", "stdio",
		"-netdev", "tap,id=lan,script=no,downscript=no,ifname="+port,
		"-device", card+",netdev=lan,romfile=")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	p, err := s.lab.Client.Start(cmd)
	must(t, err)
	t.Cleanup(func() {
		p.Kill()
		if b, err := os.ReadFile(console); t.Failed() {
			t.Logf("console of %s, %v:\n%s", card, err, tail(string(b)))
		}
	})
	vm := &serialShell{Process: p, in: stdin}
	if _, err := vm.answer(); err != nil {
		t.Fatal(err)
	}
	return vm.run
}

// guestKernel is where `make bin/guest/vmlinuz` leaves what virtual machines boot.
const guestKernel = "../bin/guest"

// initialRAMDisk packs a machine's file system for a kernel to start with.
func initialRAMDisk(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(guestKernel, "vmlinuz")); err != nil {
		t.Fatalf("%v: make bin/guest/vmlinuz gets it", err)
	}
	root, file := newMachineRoot(t), filepath.Join(t.TempDir(), "initrd")
	must(t, os.CopyFS(filepath.Join(root, "lib"), os.DirFS(filepath.Join(guestKernel, "lib"))))
	pack := exec.Command("sh", "-c", `cd "$0" && busybox find . | busybox cpio -o -H newc >"$1"`, root, file)
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// serialShell speaks with testdata/guest/init.
type serialShell struct {
	*testutil.Process
	in   io.Writer
	runs int // scripts sent
}

// run runs a script of one line.
func (s *serialShell) run(script string) (string, error) {
	if _, err := io.WriteString(s.in, script+"\n"); err != nil {
		return "", err
	}
	s.runs++
	return s.answer()
}

// answer waits for "<N STATUS>" after what the Nth script printed, which begins
// behind the same of the script before.
func (s *serialShell) answer() (out string, err error) {
	var status string
	err = testutil.Poll(patient, func() error {
		out = s.Stdout.String()
		if s.runs > 0 {
			_, out, _ = strings.Cut(out, fmt.Sprintf("<%d ", s.runs-1))
			_, out, _ = strings.Cut(out, ">\n")
		}
		var rest string
		var ended bool
		out, rest, _ = strings.Cut(out, fmt.Sprintf("<%d ", s.runs))
		if status, _, ended = strings.Cut(rest, ">\n"); ended {
			return nil
		}
		if !s.Alive() {
			return fmt.Errorf("qemu ended with exit code %d", s.ExitCode())
		}
		return errors.New("no answer")
	})
	if err == nil && status != "0" {
		err = fmt.Errorf("exit status %s", status)
	}
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, out, s.Stderr)
	}
	return out, err
}
