package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
)

// destination is one that the policy denies, or that no client may name at all.
type destination struct {
	addr    string
	dropped bool // a martian: silence instead of a refusal
}

// deniedDestinations are, for each IP version, the host itself in all its forms,
// and what only the host's own network should answer.
func deniedDestinations() map[string][]destination {
	return map[string][]destination{
		"IPv4": {
			{"192.0.2.1", false},
			{"169.254.169.254", false},
			{"169.254.170.2", false},
			{"100.100.100.200", false},
			{"127.0.0.1", true},
			{"127.8.9.10", true},
		},
		"IPv6": {
			{"fd00:2::1", false},
			{"fd00:ec2::254", false},
			{"64:ff9b::7f00:1", false},
			{"64:ff9b::c000:201", false},
			{"2002:7f00:1::1", false},
			{"2001:0:cb00:7101::80ff:fffe", false},
			{"::7f00:1", false},
			{"::1", true},
		},
	}
}

// throughDevice makes sockets leave by the device whatever their destination.
func throughDevice(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), testutil.TunName) })
		return errors.Join(err, cerr)
	}}
}

// openHost lets the client's kernel talk through the device to addresses that are
// its own, which it would otherwise never do.
func openHost(t *testing.T, n *testutil.Namespace) {
	t.Helper()
	for _, key := range []string{"accept_local", "route_localnet"} {
		if err := n.Sysctl("ipv4/conf/"+testutil.TunName+"/"+key, "1"); err != nil {
			t.Fatal(err)
		}
	}
}

// tripwire listens on every address of the client's namespace and fails the test
// when something connects.
func tripwire(t *testing.T, n *testutil.Namespace, port uint16) {
	t.Helper()
	to := serve(t, n, netip.IPv6Unspecified(), port, func(c *net.TCPConn) {
		t.Errorf("a connection from %v reached the host at %v", c.RemoteAddr(), c.LocalAddr())
	})
	if to.Port() != port {
		t.Fatalf("listening on %v, wanted port %d", to, port)
	}
}

// refusals is how often the gateway said no to a client, in whatever way.
func refusals(s testutil.Series) float64 {
	return s.Sum("tungate_proxy_dials_total", `result="denied"`) +
		s.Sum("tungate_device_frames_dropped_total", `direction="rx"`) +
		s.Sum("tungate_lan_frames_dropped_total", `direction="rx"`)
}

// TestDeniedDestinations asks for the host itself, its neighbours and the cloud's
// metadata: refused, counted, and never dialled.
func TestDeniedDestinations(t *testing.T) {
	const port = 8081
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	openHost(t, lab.Client)
	tripwire(t, lab.Client, port)
	eachFamily(t, func(t *testing.T, f family) {
		for _, d := range deniedDestinations()[f.name] {
			to := netip.AddrPortFrom(netip.MustParseAddr(d.addr), port).String()
			t.Run("tcp "+d.addr, func(t *testing.T) {
				wait, want := soon, error(syscall.ECONNREFUSED)
				if d.dropped {
					wait, want = time.Second/2, nil
				}
				before := refusals(gw.metrics(t))
				c, err := lab.Client.DialWith(t.Context(), throughDevice(wait), "tcp", to)
				if err == nil {
					c.Close()
					t.Fatal("connected")
				}
				if want != nil && !errors.Is(err, want) {
					t.Errorf("dial: %v, want %v", err, want)
				}
				if refusals(gw.metrics(t)) <= before {
					t.Error("nothing was counted")
				}
			})
			t.Run("udp "+d.addr, func(t *testing.T) {
				before := refusals(gw.metrics(t))
				c, err := lab.Client.DialWith(t.Context(), throughDevice(soon), "udp", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if !d.dropped {
					deadline(t, c, soon)
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("read: %v, want ECONNREFUSED", err)
					}
				}
				eventually(t, soon, func() error {
					if refusals(gw.metrics(t)) <= before {
						return errors.New("nothing was counted")
					}
					return nil
				})
			})
		}
	})
}

// TestForgedDestinations writes packets that no kernel would send from a socket:
// to IPv4 addresses in IPv6's mapped form, and to the device's own.
func TestForgedDestinations(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	tripwire(t, lab.Client, 8081)
	for _, c := range []struct{ from, to string }{
		{"fd00:18::2", "::ffff:127.0.0.1"},
		{"fd00:18::2", "::ffff:192.0.2.1"},
		{"fd00:18::2", "::ffff:203.0.113.1"},
		{"fd00:18::2", "fd00:18::1"},
		{"fd00:18::2", "fe80::1"},
		{"198.18.0.2", "198.18.0.1"},
		{"198.18.0.2", "0.0.0.0"},
		{"198.18.0.2", "255.255.255.255"},
		{"198.18.0.2", "240.0.0.1"},
		{"198.18.0.2", "224.0.0.1"},
	} {
		t.Run(c.to, func(t *testing.T) {
			before := refusals(gw.metrics(t))
			p := synPacket(netip.MustParseAddr(c.from), netip.MustParseAddr(c.to), 8081)
			if err := lab.Client.Do(func() error { return writeDevice(testutil.TunName, p) }); err != nil {
				t.Fatal(err)
			}
			eventually(t, soon, func() error {
				if refusals(gw.metrics(t)) <= before {
					return errors.New("nothing was counted")
				}
				return nil
			})
		})
	}
}

// synPacket is an IP packet with a SYN to a port.
func synPacket(from, to netip.Addr, port uint16) []byte {
	const tcpLen, protocol = 20, 6
	var p []byte
	if to.Is4() {
		p = []byte{0x45, 0, 0, 20 + tcpLen, 0, 1, 0, 0, 64, protocol, 0, 0}
		p = append(append(p, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(p[10:], checksum(0, p))
	} else {
		p = []byte{0x60, 0, 0, 0, 0, tcpLen, protocol, 64}
		p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	}
	tcp := make([]byte, tcpLen)
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], port)
	tcp[12], tcp[13] = tcpLen/4<<4, 2 // header length, SYN
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), tcp)
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcpLen+protocol, pseudo))
	return append(p, tcp...)
}

// checksum is the Internet checksum of b, with sum added in (RFC 1071).
func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// writeDevice lets the kernel send an IP packet by a device as it is.
func writeDevice(name string, packet []byte) error {
	w, err := openDevice(name)
	if err != nil {
		return err
	}
	return errors.Join(w.write(packet), w.close())
}

// deviceWriter sends IP packets by a device as they are. To close one takes the kernel
// tens of milliseconds (packet_release waits for a grace period of RCU).
type deviceWriter struct{ fd, index int }

func openDevice(name string) (w deviceWriter, err error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return w, err
	}
	w.index = ifi.Index
	w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return w, err
}

func (w deviceWriter) write(packet []byte) error {
	protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	if packet[0]>>4 == 6 {
		protocol = binary.NativeEndian.Uint16([]byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff})
	}
	to := &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: w.index}
	if overTAP() {
		mac, err := net.ParseMAC(lanMAC)
		if err != nil {
			return err
		}
		to.Halen = uint8(copy(to.Addr[:], mac))
	}
	return unix.Sendto(w.fd, packet, 0, to)
}

func (w deviceWriter) close() error { return unix.Close(w.fd) }

// TestAllowSelf opens the host's own addresses and wants nothing else open.
func TestAllowSelf(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", fields{"proxy.allow": []string{"self"}})
	openHost(t, lab.Client)
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Client, f.host, 0, echo)
		c, err := lab.Client.DialWith(t.Context(), throughDevice(soon), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		deadline(t, c, soon)
		if err := exchange(c); err != nil {
			t.Error(err)
		}
	})
	c, err := lab.Client.DialWith(t.Context(), throughDevice(soon), "tcp", "169.254.169.254:80")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("metadata: %v, %v, want ECONNREFUSED", c, err)
	}
}

// TestAdminOutOfReach asks for the admin server through the device and from
// outside.
func TestAdminOutOfReach(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	openHost(t, lab.Client)
	const port = 9090
	for _, addr := range []string{"127.0.0.1", "192.0.2.1", "198.18.0.1", "fd00:2::1", "fd00:18::1", "::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
		if c, err := lab.Client.DialWith(t.Context(), throughDevice(time.Second/2), "tcp", to); err == nil {
			c.Close()
			t.Errorf("%s answers through the device", to)
		}
	}
	for _, f := range families() {
		to := netip.AddrPortFrom(f.host, port).String()
		if c, err := lab.Server.Dial("tcp", to, time.Second); err == nil {
			c.Close()
			t.Errorf("%s answers from outside", to)
		}
	}
	if _, err := gw.Get("/metrics"); err != nil {
		t.Errorf("and for the host itself: %v", err)
	}
}

// TestLoop leaves out the mark, so that upstream connections come back through
// the device: refused at once, not dialled in circles.
func TestLoop(t *testing.T) {
	const attempts = 20
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.mark": nil})
	eachFamily(t, func(t *testing.T, f family) {
		before := gw.metrics(t).Sum("tungate_proxy_dials_total")
		to := netip.AddrPortFrom(f.server, 80).String()
		together(t, attempts, func(int) error {
			c, err := lab.Client.Dial("tcp", to, soon)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("dial: %v, %w, want ECONNREFUSED", c, err)
			}
			return nil
		})
		s := gw.metrics(t)
		if s.Sum("tungate_proxy_dials_total", `result="denied"`) == 0 {
			t.Error("no loop was counted")
		}
		if dials := s.Sum("tungate_proxy_dials_total") - before; dials > 4*attempts {
			t.Errorf("%v dials for %d connections", dials, attempts)
		}
	})
}
