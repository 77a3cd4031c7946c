package gateway_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/tundev/tuntest"
)

// maxUDP is the largest datagram that fits IPv4, and so both.
const maxUDP = 65507

// sizes are datagrams from nothing to dozens of fragments.
var sizes = []int{0, 1, 512, 1452, 1473, 9000, 40_001, maxUDP}

// udpServer is a kernel socket on loopback and the address it has for clients.
type udpServer struct {
	*net.UDPConn
	at   netip.AddrPort
	addr netip.AddrPort
}

func listenUDP(t *testing.T, f family) *udpServer {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &udpServer{c, c.LocalAddr().(*net.UDPAddr).AddrPort(), netip.AddrPortFrom(f.service, 5000)}
}

func (s *udpServer) forwardTo() map[netip.AddrPort]netip.AddrPort {
	return map[netip.AddrPort]netip.AddrPort{s.addr: s.at}
}

// echo answers everything until the socket is closed.
func (s *udpServer) echo() {
	b := make([]byte, maxUDP)
	for {
		n, from, err := s.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = s.WriteToUDPAddrPort(b[:n], from)
	}
}

// echoes sends a datagram of each size and wants it back as it was.
func echoes(t *testing.T, c *udpConn) {
	t.Helper()
	b := make([]byte, maxUDP+1)
	for i, size := range sizes {
		want := bytesOf(byte(i), size)
		if _, err := c.Write(want); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(wait.Patience))
		n, err := c.Read(b)
		if err != nil || !bytes.Equal(b[:n], want) {
			t.Fatalf("%d bytes came back as %d, %v", size, n, err)
		}
	}
}

// TestUDP carries datagrams of all sizes, in fragments where they must be, with
// checksums that were verified on both sides.
func TestUDP(t *testing.T) {
	for name, dev := range map[string]tuntest.Options{"offloads": {}, "no checksum": {NoChecksum: true}} {
		t.Run(name, func(t *testing.T) {
			for _, f := range families {
				t.Run(f.name, func(t *testing.T) {
					s := listenUDP(t, f)
					go s.echo()
					r := newRig(t, f, options{device: dev, forward: s.forwardTo()})
					echoes(t, r.client.dialUDP(s.addr))
					wait.Until(t, "all to be counted", func() bool {
						n := uint64(len(sizes))
						s, p := r.g.Stats()
						return s.DatagramsIn == n && s.DatagramsOut == n && s.DatagramsBad == 0 &&
							p.UDP.Open == 1 && p.UDP.BytesUp == s.DatagramBytesIn && p.UDP.BytesDown == p.UDP.BytesUp
					})
				})
			}
		})
	}
}

// TestUDPUnreachable: nobody home is an ICMP error, whether the destination is
// denied or its port closed.
func TestUDPUnreachable(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := listenUDP(t, f)
			r := newRig(t, f, options{forward: s.forwardTo()})
			_ = s.Close()
			denied := map[string]string{"ipv4": "169.254.169.254:53", "ipv6": "[fe80::1]:53"}[f.name]
			for _, to := range []netip.AddrPort{s.addr, netip.MustParseAddrPort(denied)} {
				if err := r.client.dialUDP(to).failure([]byte("anyone?")); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%v: %v, want ECONNREFUSED", to, err)
				}
			}
			wait.Until(t, "both to be counted", func() bool { s, _ := r.g.Stats(); return s.DatagramsRejected == 2 })
		})
	}
}

// TestEchoHandler answers any address and port by itself.
func TestEchoHandler(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, f, options{config: func(c *config.Config) { c.Proxy.Handler = "echo" }})
			for _, port := range []uint16{7, 80, 65535} {
				to := netip.AddrPortFrom(f.service, port)
				down := r.client.mustDial(to)
				want := bytesOf(byte(port), 1<<20)
				go send(t, down, want)
				receive(t, "the client", down, want)
				echoes(t, r.client.dialUDP(to))
			}
			down := r.client.mustDial(netip.AddrPortFrom(f.service, 1))
			wait.Until(t, "the connection", func() bool { _, p := r.g.Stats(); return p.TCP.Open == 1 })
			down.reset()
			wait.Until(t, "all ends", func() bool {
				s, p := r.g.Stats()
				return s.Established == 0 && p.TCP.Closed[flow.ReasonDone] == 3 && p.TCP.Closed[flow.ReasonClientReset] == 1
			})
		})
	}
}

// TestUDPEnds: the end of the gateway ends sessions, whatever they still wait for.
func TestUDPEnds(t *testing.T) {
	f := families[0]
	s := listenUDP(t, f)
	r := newRig(t, f, options{forward: s.forwardTo()})
	c := r.client.dialUDP(s.addr)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.cancel()
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	if _, p := r.g.Stats(); p.UDP.Open != 0 || p.UDP.Closed[flow.ReasonShutdown] != 1 {
		t.Errorf("counted %+v", p.UDP)
	}
	_ = c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && err == nil {
		t.Error("an answer came after the end")
	}
}
