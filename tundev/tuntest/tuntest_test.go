package tuntest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// iov covers a frame with a vector for the header and one for the rest.
func iov(b []byte) []unix.Iovec {
	v := make([]unix.Iovec, 2)
	v[0].Base, v[1].Base = &b[0], &b[tuntest.HdrLen]
	v[0].SetLen(tuntest.HdrLen)
	v[1].SetLen(len(b) - tuntest.HdrLen)
	return v
}

// datagram is a frame of flow n, back if it goes the other way.
func datagram(kind tundev.Kind, n byte, back bool) []byte {
	f := append([]byte(nil), make([]byte, tuntest.HdrLen)...)
	if kind == tundev.TAP {
		f = append(f, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0)
	}
	ip := make([]byte, 28)
	copy(ip, []byte{0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, offload.ProtoUDP, 0, 0, 198, 18, 0, 1, 198, 19, 0, n, 0x1b, 0x58, 0, 53, 0, 8})
	if back {
		copy(ip[12:], []byte{198, 19, 0, n, 198, 18, 0, 1, 0, 53, 0x1b, 0x58})
	}
	binary.BigEndian.PutUint16(ip[10:], ^offload.Sum(ip[:20], 0))
	return append(f, ip...)
}

// TestSteering: what comes back for a flow waits on the queue that wrote to it.
func TestSteering(t *testing.T) {
	for _, kind := range []tundev.Kind{tundev.TUN, tundev.TAP} {
		a, b := tuntest.Pair(tuntest.Options{Kind: kind, Queues: 4})
		used := map[int]bool{}
		buf := make([]byte, 2048)
		for n := range byte(64) {
			from := int(n) % 4
			if err := a.Queues()[from].WriteFrame(iov(datagram(kind, n, false))); err != nil {
				t.Fatal(err)
			}
			used[readFrom(t, b, buf)] = true
			if err := b.Queues()[0].WriteFrame(iov(datagram(kind, n, true))); err != nil {
				t.Fatal(err)
			}
			if at := readFrom(t, a, buf); at != from {
				t.Errorf("%s: flow %d left by queue %d and came back on %d", kind, n, from, at)
			}
		}
		if len(used) != 4 {
			t.Errorf("%s: 64 flows went to queues %v of the far side, want all 4", kind, used)
		}
		if !a.SendOn(3, datagram(kind, 200, false)) || readFrom(t, a, buf) != 3 {
			t.Errorf("%s: a frame for queue 3 is not there", kind)
		}
	}
}

// readFrom reads the one frame that waits and returns its queue.
func readFrom(t *testing.T, d *tuntest.Device, buf []byte) int {
	t.Helper()
	for i, q := range d.Queues() {
		if _, err := q.TryReadFrame(iov(buf)); err == nil {
			return i
		} else if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	t.Fatal("no frame")
	return -1
}

// TestFaults come when they are asked for, and go.
func TestFaults(t *testing.T) {
	super := datagram(tundev.TUN, 1, false)
	super[1] = byte(offload.GSOTCPv4)
	plain := datagram(tundev.TUN, 1, false)
	d := tuntest.New(tuntest.Options{})
	write := func(f []byte) error { return d.Queues()[0].WriteFrame(iov(f)) }
	for _, c := range []struct {
		name  string
		do    func()
		frame []byte
		want  error
	}{
		{"nothing", func() {}, plain, nil},
		{"every write", func() { d.FailWrites(unix.ENOBUFS) }, plain, unix.ENOBUFS},
		{"and again", func() {}, plain, unix.ENOBUFS},
		{"no more", func() { d.FailWrites(nil) }, plain, nil},
		{"a burst of two", func() { d.FailNext(2, unix.EAGAIN) }, plain, unix.EAGAIN},
		{"its second", func() {}, plain, unix.EAGAIN},
		{"after it", func() {}, plain, nil},
		{"superframes refused", func() { d.RefuseSuperframes(true) }, super, unix.EINVAL},
		{"others are not", func() {}, plain, nil},
		{"superframes taken", func() { d.RefuseSuperframes(false) }, super, nil},
		{"down", func() { d.SetUp(false) }, plain, unix.EIO},
		{"up", func() { d.SetUp(true) }, plain, nil},
		{"deleted", d.Delete, plain, tundev.ErrGone},
		{"and then closed", func() { _ = d.Close() }, plain, tundev.ErrGone},
	} {
		c.do()
		if err := write(c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if d.Written() != 6 {
		t.Errorf("%d frames written, want 6", d.Written())
	}
	full := tuntest.New(tuntest.Options{FullEvery: 3, Depth: 2})
	for i, want := range []error{nil, nil, unix.EAGAIN, unix.EAGAIN} { // by FullEvery, by Depth
		if err := full.WriteFrame(iov(plain)); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
}

// TestContract is what a device of package tundev does as well.
func TestContract(t *testing.T) {
	d := tuntest.New(tuntest.Options{Kind: tundev.TAP, USO: true})
	if len(d.HardwareAddr()) != 6 || !d.Features().USO || d.Kind() != tundev.TAP || d.FD() != -1 {
		t.Errorf("%s %v %v", d.Kind(), d.HardwareAddr(), d.Features())
	}
	b := make([]byte, 64)
	half := iov(b)
	half[0].SetLen(tuntest.HdrLen / 2)
	for name, v := range map[string][]unix.Iovec{"header alone": iov(b)[:1], "half a header": half, "nothing": nil} {
		_, err := d.TryReadFrame(v)
		_, err2 := d.ReadFrame(v)
		if err3 := d.WriteFrame(v); !errors.Is(err, unix.EINVAL) || !errors.Is(err2, unix.EINVAL) || !errors.Is(err3, unix.EINVAL) {
			t.Errorf("%s: %v, %v, %v, want EINVAL", name, err, err2, err3)
		}
	}
	read := make(chan error, 1)
	go func() { _, err := d.ReadFrame(iov(b)); read <- err }()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader ended with %v, want net.ErrClosed", err)
	}
}

// TestWatch tells of each change, and of the end.
func TestWatch(t *testing.T) {
	d := tuntest.New(tuntest.Options{MTU: 1400})
	states := make(chan tundev.State, 16)
	ended := make(chan error, 1)
	go func() { ended <- d.Watch(context.Background(), func(s tundev.State) { states <- s }) }()
	d.SetUp(false)
	d.SetUp(false) // no change
	d.SetUp(true)
	d.SetMTU(9000)
	a, b := netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("192.0.2.1/24")
	d.SetAddresses(a, b)
	d.SetAddresses(b, a) // no change
	for _, want := range []tundev.State{{Up: true, MTU: 1400}, {MTU: 1400}, {Up: true, MTU: 1400}, {Up: true, MTU: 9000}, {Up: true, MTU: 9000, Addresses: []netip.Prefix{b, a}}} {
		if got := <-states; !got.Equal(want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	d.Delete()
	if err := <-ended; !errors.Is(err, tundev.ErrGone) {
		t.Errorf("ended with %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	closed := tuntest.New(tuntest.Options{})
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := closed.Watch(ctx, func(tundev.State) {}); err != nil {
		t.Errorf("ended with %v", err)
	}
}
