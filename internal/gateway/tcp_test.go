package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev/tuntest"
)

// TestTransfer moves megabytes both ways at once and compares every byte, over
// devices with all offloads, some, and none; the client verifies the checksums
// that the device leaves to it.
func TestTransfer(t *testing.T) {
	const size = 4<<20 + 321
	for name, dev := range map[string]tuntest.Options{
		"offloads":    {},
		"no TSO":      {NoTSO: true},
		"no checksum": {NoChecksum: true},
		"jumbo":       {MTU: 9000},
		"small":       {MTU: 1280, NoTSO: true},
	} {
		t.Run(name, func(t *testing.T) {
			forFamilies(t, func(t *testing.T, f family, relay string) {
				j := join(t, f, options{relay: relay, device: dev})
				exchange(t, j.down, j.up, bytesOf(1, size), bytesOf(2, size))
				wait.Until(t, "the connection's end", func() bool {
					s, p := j.g.Stats()
					return s.Established == 0 && p.TCP.Open == 0
				})
				s, p := j.g.Stats()
				if p.TCP.BytesUp != size || p.TCP.BytesDown != size || p.TCP.Closed[flow.ReasonDone] != 1 || s.Accepted != 1 {
					t.Errorf("counted %+v, %d accepted", p.TCP, s.Accepted)
				}
				checkOffloads(t, dev, s.Link, j.client.link.Stats())
			})
		})
	}
}

// checkOffloads holds what was written to the device to what it can.
func checkOffloads(t *testing.T, dev tuntest.Options, ours, clients link.Stats) {
	t.Helper()
	for who, s := range map[string]link.Stats{"the gateway": ours, "the client": clients} {
		tx, rx := s.Queues[0].Tx, s.Queues[0].Rx
		tso := !dev.NoTSO && !dev.NoChecksum
		if tso != (tx.Superframes > 0) || tso == (tx.SoftwareGSO > 0) {
			t.Errorf("%s sent %d superframes and cut %d", who, tx.Superframes, tx.SoftwareGSO)
		}
		if dev.NoChecksum && tx.PartialChecksum > 0 {
			t.Errorf("%s left %d checksums to a device without", who, tx.PartialChecksum)
		}
		// Superframes leave the sum to the device, what was cut carries it; a
		// SYN-ACK has one of its own.
		if tso == (rx.Verified > 2) {
			t.Errorf("%s verified %d of %d frames", who, rx.Verified, rx.Frames)
		}
		for r, n := range s.Drops {
			if n != 0 && link.DropReason(r) != link.DropTxFull {
				t.Errorf("%s dropped %d frames: %v", who, n, link.DropReason(r))
			}
		}
	}
}

// TestLoss: what a full device does not take waits, and what it loses TCP repairs.
func TestLoss(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		j := join(t, f, options{relay: relay, device: tuntest.Options{FullEvery: 10, LoseEvery: 25, NoTSO: true}})
		exchange(t, j.down, j.up, bytesOf(3, 200_000), bytesOf(4, 200_000))
		s, _ := j.g.Stats()
		if s.Link.Queues[0].Tx.Waited == 0 || s.TCP.Retransmits == 0 {
			t.Errorf("%d frames waited and %d segments were sent again; want some", s.Link.Queues[0].Tx.Waited, s.TCP.Retransmits)
		}
	})
}

// TestHalfClose: a client that has sent everything still receives, and so does an
// upstream.
func TestHalfClose(t *testing.T) {
	request, answer := bytesOf(5, 100_000), bytesOf(6, 1<<20)
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		r := newRig(t, f, options{relay: relay, forward: s.forwardTo()})
		for _, clientFirst := range []bool{true, false} {
			down := r.client.mustDial(s.addr)
			up := s.accept()
			first, second := halfCloser(down), halfCloser(up)
			if !clientFirst {
				first, second = second, first
			}
			go send(t, first, request)
			receive(t, "the second", second, request)
			go send(t, second, answer)
			receive(t, "the first", first, answer)
		}
	})
}

// TestRefused: a closed port looks closed, and so does a denied destination.
func TestRefused(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		r := newRig(t, f, options{relay: relay, forward: s.forwardTo()})
		_ = s.Close()
		metadata := map[string]string{"ipv4": "169.254.169.254:80", "ipv6": "[fe80::1]:80"}[f.name]
		for _, to := range []netip.AddrPort{s.addr, netip.MustParseAddrPort(metadata)} {
			if _, err := r.client.dial(to); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%v: %v, want ECONNREFUSED", to, err)
			}
		}
		wait.Until(t, "both to be counted", func() bool {
			s, p := r.g.Stats()
			return s.Refused == 2 && s.Flows.HalfOpen == 0 && p.TCP.Dials[proxy.DialRefused] == 1 && p.TCP.Dials[proxy.DialDenied] == 1
		})
	})
}

// TestSilentUpstream: dials that nobody answers keep nobody waiting, and end.
func TestSilentUpstream(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		silent := netip.AddrPortFrom(f.service, 81)
		forward := s.forwardTo()
		forward[silent] = fullListener(t, f.loopback)
		r := newRig(t, f, options{relay: relay, forward: forward, config: func(c *config.Config) {
			c.Proxy.ConnectTimeout = 300 * time.Millisecond
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var hanging sync.WaitGroup
		for range 20 {
			hanging.Go(func() {
				if c, err := r.client.dialContext(ctx, silent); err == nil {
					t.Error("a silent upstream was accepted")
					c.reset()
				}
			})
		}
		down := r.client.mustDial(s.addr)
		exchange(t, down, s.accept(), []byte("up"), []byte("down"))
		wait.Until(t, "the dials' timeout", func() bool {
			s, _ := r.g.Stats()
			return s.Flows.HalfOpen == 0 && s.Dropped >= 20
		})
		cancel()
		hanging.Wait()
	})
}

// fullListener returns the address of a listener that answers no SYN: its queue
// of connections nobody accepts is full.
func fullListener(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, sa), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	if sa, err = unix.Getsockname(fd); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(addr, 0)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		to = netip.AddrPortFrom(addr, uint16(sa.Port))
	case *unix.SockaddrInet6:
		to = netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	// A queue of length 0 holds one.
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return to
}

// TestAbort: a reset on one side is a reset on the other.
func TestAbort(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		r := newRig(t, f, options{relay: relay, forward: s.forwardTo()})
		for _, want := range []flow.CloseReason{flow.ReasonClientReset, flow.ReasonUpstreamReset} {
			down := r.client.mustDial(s.addr)
			up := s.accept()
			if _, err := down.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(up, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if want == flow.ReasonClientReset {
				down.reset()
				wantReset(t, "the upstream", up)
			} else {
				_ = up.SetLinger(0)
				_ = up.Close()
				wantReset(t, "the client", down)
			}
			wait.Until(t, want.String(), func() bool {
				s, p := r.g.Stats()
				return p.TCP.Closed[want] == 1 && s.Established == 0
			})
		}
	})
}

// TestManyConnections carries hundreds at once, each its own bytes.
func TestManyConnections(t *testing.T) {
	const conns, size = 150, 64 << 10
	forFamilies(t, func(t *testing.T, f family, relay string) {
		s := listen(t, f)
		go func() {
			for {
				up, err := s.AcceptTCP()
				if err != nil {
					return
				}
				go func() {
					defer up.Close()
					// Not by splice: its pipes stay in a pool until a GC.
					_, _ = io.Copy(struct{ io.Writer }{up}, struct{ io.Reader }{up})
				}()
			}
		}()
		r := newRig(t, f, options{relay: relay, forward: s.forwardTo()})
		var wg sync.WaitGroup
		for i := range byte(conns) {
			wg.Go(func() {
				down := r.client.mustDial(s.addr)
				want := bytesOf(i, size)
				go send(t, down, want)
				receive(t, "the client", down, want)
			})
		}
		wg.Wait()
		wait.Until(t, "every end", func() bool {
			s, p := r.g.Stats()
			return s.Established == 0 && p.TCP.Closed[flow.ReasonDone] == conns
		})
	})
}

// TestBufferBudget: buffers grow with what their flows carry while there is budget, then
// no more; and what has grown is given back.
func TestBufferBudget(t *testing.T) {
	forFamilies(t, func(t *testing.T, f family, relay string) {
		for _, budget := range []int64{1 << 30, 1} {
			s := listen(t, f)
			r := newRig(t, f, options{relay: relay, forward: s.forwardTo(), config: func(c *config.Config) { c.Stack.TCP.BufferBudget = budget }})
			grown := func() int64 { s, _ := r.g.Stats(); return s.BufferGrowth }
			var ends []*conn
			var after []int64
			for range 2 {
				down := r.client.mustDial(s.addr)
				up := s.accept()
				go func() { _, _ = up.Write(bytesOf(1, 8<<20)) }()
				go func() { _, _ = down.Write(bytesOf(2, 8<<20)) }()
				for _, from := range []io.Reader{up, down} {
					if _, err := io.CopyN(io.Discard, from, 8<<20); err != nil {
						t.Fatal(err)
					}
				}
				ends, after = append(ends, down), append(after, grown())
			}
			// gVisor has taken a send buffer's first step before anybody is asked.
			const step = 64 << 10
			if more := after[1] - after[0]; after[0] == 0 || (budget == 1) != (more < step) {
				t.Errorf("budget %d: grown by %d with one connection, %d with two", budget, after[0], after[1])
			}
			for _, c := range ends {
				_ = c.Close()
			}
			r.cancel()
			close(r.cut)
			if err := r.ended(); err != nil {
				t.Error(err)
			}
			if n := grown(); n != 0 {
				t.Errorf("%d were not given back", n)
			}
		}
	})
}
