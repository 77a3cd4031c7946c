package tundev_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// source is a device to which the kernel sends datagrams on demand.
type source struct {
	q  tundev.Queue
	pc *net.UDPConn
	b  []byte
	v  []unix.Iovec
}

func newSource(tb testing.TB, hdr tundev.Mode) *source {
	tb.Helper()
	ns, err := testutil.NewNamespace("frames")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ns.Close() })
	// Without IPv6 the kernel sends nothing on its own.
	if err := ns.Sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		tb.Fatal(err)
	}
	d, err := tundev.Create(tundev.Options{
		NetNS: ns.Name, MTU: tundev.MaxMTU, Queues: 1, Offload: tundev.Offload{VnetHdr: hdr},
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	pc, err := ns.ListenPacket("198.18.0.1:7000")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = pc.Close() })
	s := &source{q: d.Queues()[0], pc: pc, b: make([]byte, offload.HdrLen+65535)}
	s.v = iov(s.b, offload.HdrLen)
	return s
}

// send puts n datagrams on the device.
func (s *source) send(tb testing.TB, n, size int) {
	tb.Helper()
	peer := &net.UDPAddr{IP: net.IPv4(198, 19, 0, 9), Port: 9}
	for range n {
		if _, err := s.pc.WriteTo(make([]byte, size), peer); err != nil {
			tb.Fatal(err)
		}
	}
}

// drain reads until the device is empty.
func (s *source) drain(tb testing.TB) {
	tb.Helper()
	for {
		if _, err := s.q.TryReadFrame(s.v); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			tb.Fatal(err)
		}
	}
}

// dropped is a frame of n bytes that the kernel takes and drops: to an address that
// nobody has, with a wrong header checksum.
func dropped(n int) []byte {
	f := make([]byte, offload.HdrLen+n)
	copy(f[offload.HdrLen:], []byte{0x45, 0, byte(n >> 8), byte(n), 0, 0, 0x40, 0, 64, offload.ProtoUDP, 0, 0, 198, 19, 0, 9, 192, 0, 2, 1})
	return f
}

// TestFrameAllocs: a frame costs no allocation, there or not, taken or not.
func TestFrameAllocs(t *testing.T) {
	for _, hdr := range []tundev.Mode{tundev.Auto, tundev.Off} {
		s := newSource(t, hdr)
		s.drain(t)
		const runs = 100
		s.send(t, runs+1, 1000)
		if n := testing.AllocsPerRun(runs, func() {
			if n, err := s.q.TryReadFrame(s.v); err != nil || n < 1000 {
				t.Fatalf("read %d bytes, %v", n, err)
			}
		}); n != 0 {
			t.Errorf("vnet_hdr %v: %v allocations per read", hdr, n)
		}
		s.drain(t)
		w := iov(dropped(1000), offload.HdrLen)
		if n := testing.AllocsPerRun(runs, func() {
			if _, err := s.q.TryReadFrame(s.v); !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("read of an empty device: %v, want EAGAIN", err)
			}
			if err := s.q.WriteFrame(w); err != nil {
				t.Fatal(err)
			}
			if err := s.q.WriteFrame(w[:1]); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("write of a header alone: %v, want EINVAL", err)
			}
		}); n != 0 {
			t.Errorf("vnet_hdr %v: %v allocations per write", hdr, n)
		}
	}
}

// pollOut returns what epoll would say of writing to the queue within the time.
func pollOut(t *testing.T, q tundev.Queue, within time.Duration) int16 {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLOUT}}
	for {
		_, err := unix.Poll(fds, int(within.Milliseconds()))
		if err == nil {
			return fds[0].Revents
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// TestWritable: a queue whose write was refused says when to try again.
func TestWritable(t *testing.T) {
	ns := quiet(t)
	d := create(t, ns, tundev.Options{Name: "tap0", Kind: tundev.TAP, Queues: 2})
	if err := ns.IP("link add br0 type bridge", "link add p0 type veth peer name p1", "link set p0 master br0", "link set tap0 master br0",
		"link set p0 up", "link set p1 up", "link set br0 up"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tc", append([]string{"-n", ns.Name}, strings.Fields("qdisc add dev p0 root tbf rate 4mbit burst 8k limit 4m")...)...).CombinedOutput(); err != nil {
		t.Fatalf("tc made no tbf: install iproute2 (make packages), and build the kernel with NET_SCH_TBF: %v: %s", err, out)
	}
	const sndbuf = 64 << 10
	if err := d.Control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TUNSETSNDBUF, sndbuf) }); err != nil {
		t.Fatal(err)
	}
	q := d.Queues()[0]
	if got := pollOut(t, q, 0); got != unix.POLLOUT {
		t.Errorf("idle: poll %#x, want POLLOUT alone", got)
	}
	f := make([]byte, offload.HdrLen+1000)
	copy(f[offload.HdrLen:], []byte{2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 8, 0x88, 0xb5})
	v := iov(f, offload.HdrLen)
	written := 0
	for ; written < 1000; written++ {
		err := q.WriteFrame(v)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if written == 1000 {
		t.Fatal("no write was refused: behind the bridge frames of a device must count until they are sent")
	}
	if got := pollOut(t, q, 0); got&unix.POLLOUT != 0 {
		t.Errorf("full: poll %#x, want no POLLOUT", got)
	}
	if got := pollOut(t, q, within); got&unix.POLLOUT == 0 {
		t.Fatalf("never writable again: poll %#x", got)
	}
	if err := q.WriteFrame(v); err != nil {
		t.Errorf("after POLLOUT: %v", err)
	}
}

// TestWritableUp: a link that is down is not writable until it is up.
func TestWritableUp(t *testing.T) {
	ns := quiet(t)
	d := create(t, ns, tundev.Options{Name: "tun0", Queues: 1})
	q := d.Queues()[0]
	if err := ns.IP("link set tun0 down"); err != nil {
		t.Fatal(err)
	}
	v := iov(dropped(100), offload.HdrLen)
	if err := q.WriteFrame(v); !errors.Is(err, unix.EIO) || pollOut(t, q, 0)&unix.POLLOUT != 0 {
		t.Errorf("down: %v", err)
	}
	woken := make(chan int16, 1)
	go func() { woken <- pollOut(t, q, within) }()
	if err := ns.IP("link set tun0 up"); err != nil {
		t.Fatal(err)
	}
	if got := <-woken; got&unix.POLLOUT == 0 {
		t.Errorf("up: poll %#x", got)
	}
	if err := q.WriteFrame(v); err != nil {
		t.Errorf("up: %v", err)
	}
}

// BenchmarkWriteFrame writes frames that the kernel drops at once.
func BenchmarkWriteFrame(b *testing.B) {
	for _, hdr := range []tundev.Mode{tundev.Auto, tundev.Off} {
		for _, size := range []int{64, 1500, 65000} {
			b.Run(fmt.Sprintf("vnet_hdr=%s/%d", hdr, size), func(b *testing.B) {
				s := newSource(b, hdr)
				v := iov(dropped(size), offload.HdrLen)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := s.q.WriteFrame(v); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkTryReadFrame reads frames that wait.
func BenchmarkTryReadFrame(b *testing.B) {
	for _, hdr := range []tundev.Mode{tundev.Auto, tundev.Off} {
		for _, size := range []int{64, 1500, 65000} {
			b.Run(fmt.Sprintf("vnet_hdr=%s/%d", hdr, size), func(b *testing.B) {
				s := newSource(b, hdr)
				s.drain(b)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				left := 0
				for b.Loop() {
					if left == 0 {
						b.StopTimer()
						left = 64
						s.send(b, left, size-28)
						b.StartTimer()
					}
					if _, err := s.q.TryReadFrame(s.v); err != nil {
						b.Fatal(err)
					}
					left--
				}
			})
		}
	}
}
