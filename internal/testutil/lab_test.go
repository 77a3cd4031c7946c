package testutil

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLab wants the two namespaces to reach each other over both families, with
// the congestion control that was promised, and nothing of them left at the end.
func TestLab(t *testing.T) {
	lab, err := NewLab()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Namespace{lab.Client, lab.Server} {
		if cc, err := n.SocketCongestionControl(); err != nil || cc != CongestionControl {
			t.Errorf("%s: sockets use %q, %v", n.Name, cc, err)
		}
	}
	for _, addr := range []netip.Addr{ServerV4, ServerV6, LocalNet4.Addr().Next().Next(), RouterV6} {
		if err := greet(lab, addr); err != nil {
			t.Errorf("%v: %v", addr, err)
		}
	}
	silent := net.JoinHostPort(SilentV4.String(), "80")
	var timeout net.Error
	if _, err := lab.Client.Dial("tcp", silent, 100*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the silent address: %v, want a timeout", err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(nsDir + "/" + fmt.Sprintf("%s%d-*", nsPrefix, os.Getpid())); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// greet carries a byte from the client's namespace to a listener in the server's.
func greet(lab *Lab, addr netip.Addr) error {
	l, err := lab.Server.Listen(netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := lab.Client.Dial("tcp", l.Addr().String(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// TestSweep removes what a killed run has left, and nothing of a living one.
func TestSweep(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprintf("%s%d-client-0000", nsPrefix, gone.Process.Pid)
	if err := ip("netns", "add", dead); err != nil {
		t.Fatal(err)
	}
	alive, err := NewNamespace("alive")
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(nsDir, dead)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead run's namespace: %v", err)
	}
	if err := alive.Close(); err != nil {
		t.Errorf("the living run's namespace: %v", err)
	}
}

// TestProcess wants an end however it comes, and the output.
func TestProcess(t *testing.T) {
	n, err := NewNamespace("process")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if left, err := n.KillAll(); left != "" || err != nil {
			t.Errorf("left: %s %v", left, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	stdout, stderr, err := n.Run(time.Second, exec.Command("sh", "-c", "echo out; echo err >&2; exit 3"))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || stdout != "out\n" || stderr != "err\n" {
		t.Errorf("%v, %q, %q", err, stdout, stderr)
	}
	p, err := n.Start(exec.Command("sh", "-c", "trap '' TERM; echo ready; exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	err = Poll(time.Second, func() error {
		if p.Stdout.String() == "" {
			return errors.New("not ready")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.Stop(50 * time.Millisecond); !errors.Is(err, ErrStillRunning) || p.ExitCode() != 128+9 {
		t.Errorf("a process that ignores SIGTERM: %v, exit code %d", err, p.ExitCode())
	}
	if _, err := RSS(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := CPU(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	s, err := ParseMetrics(`# HELP tungate_device_bytes_total Bytes.
# TYPE tungate_device_bytes_total counter
tungate_device_bytes_total{direction="rx",queue="0"} 1000
tungate_device_bytes_total{direction="rx",queue="1"} 1000
tungate_device_bytes_total{direction="tx",queue="0"} 10
tungate_device_superframe_bytes_total{direction="rx",queue="0"} 900
tungate_device_superframe_bytes_total{direction="rx",queue="1"} 1e+03
tungate_tcp_half_open 3
`)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Sum("tungate_device_bytes_total"); got != 2010 {
		t.Errorf("sum %v", got)
	}
	if got := s.Sum("tungate_device_bytes_total", `direction="rx"`, `queue="1"`); got != 1000 {
		t.Errorf("sum of one series %v", got)
	}
	if got := s.SuperframeShare(false); got != 0.95 {
		t.Errorf("share %v", got)
	}
	if got := s.Sub(Series{"tungate_tcp_half_open": 1}).Sum("tungate_tcp_half_open"); got != 2 {
		t.Errorf("difference %v", got)
	}
	if _, err := ParseMetrics("tungate_x y\n"); err == nil {
		t.Error("a broken line was read")
	}
}

func TestEditConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte("proxy:\n  mark: 1\n  handler: direct\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := EditConfig(path, t.TempDir(), map[string]any{
		"proxy.mark": nil, "proxy.udp.max_sessions": 7, "shutdown_timeout": "1s",
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	if text != "proxy: handler: direct udp: max_sessions: 7 shutdown_timeout: 1s" {
		t.Errorf("%s", b)
	}
}

func TestIPerfReport(t *testing.T) {
	res, err := parseIPerf(`{"end":{"sum_sent":{"retransmits":4},"sum_received":{"bytes":100,"bits_per_second":800.5}}}`, "", nil)
	if err != nil || res.Bytes != 100 || res.BitsPerSecond != 800.5 || res.Retransmits != 4 {
		t.Errorf("%+v, %v", res, err)
	}
	for _, bad := range []string{`{"error":"the server is busy"}`, `{"end":{}}`, ``, `{`} {
		if _, err := parseIPerf(bad, "", nil); err == nil {
			t.Errorf("%q was taken for a result", bad)
		}
	}
}
