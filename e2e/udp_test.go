package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// maxDatagram is more than any datagram holds.
const maxDatagram = 1 << 16

// serveUDP echoes datagrams in a namespace until the test ends.
func serveUDP(t *testing.T, n *testutil.Namespace, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	conn, err := n.ListenPacket(at.String())
	if err != nil {
		t.Fatal(err)
	}
	done := background(func() error {
		buf := make([]byte, maxDatagram)
		for {
			k, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return err
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:k], from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// exchangeUDP sends a datagram of size bytes from a fresh socket and wants it back.
func exchangeUDP(n *testutil.Namespace, to netip.AddrPort, size int) error {
	c, err := n.Dial("udp", to.String(), soon)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return err
	}
	want := make([]byte, size)
	if _, err := io.ReadFull(pattern(uint64(size)), want); err != nil {
		return err
	}
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, maxDatagram)
	k, err := c.Read(got)
	if err != nil {
		return fmt.Errorf("%d bytes to %v: %w", size, to, err)
	}
	if !bytes.Equal(got[:k], want) {
		return fmt.Errorf("%d bytes to %v: other bytes came back (%d)", size, to, k)
	}
	return nil
}

// TestUDPEcho sends datagrams of every kind of size, fragmented ones included.
func TestUDPEcho(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		to := serveUDP(t, lab.Server, netip.AddrPortFrom(f.server, 0))
		for _, size := range []int{0, 1, 1452, 1472, 1473, 8000, 60000} {
			t.Run(strconv.Itoa(size), func(t *testing.T) {
				if err := exchangeUDP(lab.Client, to, size); err != nil {
					t.Error(err)
				}
			})
		}
		t.Run("many", func(t *testing.T) {
			together(t, 500, func(int) error { return exchangeUDP(lab.Client, to, 500) })
		})
	})
}

// TestUDPRefused wants the ICMP error of a closed port.
func TestUDPRefused(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		c, err := lab.Client.Dial("udp", netip.AddrPortFrom(f.server, 9).String(), soon)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		deadline(t, c, soon)
		if _, err := c.Write([]byte("anyone?")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("read: %v, want ECONNREFUSED", err)
		}
	})
}

// dnsName is the only name the tests' server knows.
const dnsName = "tungate.example"

// serveDNS answers questions for dnsName with addresses, over UDP and TCP.
func serveDNS(t *testing.T, n *testutil.Namespace, at netip.AddrPort, answers ...netip.Addr) {
	t.Helper()
	conn, err := n.ListenPacket(at.String())
	if err != nil {
		t.Fatal(err)
	}
	done := background(func() error {
		buf := make([]byte, maxDatagram)
		for {
			k, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return err
			}
			if a := answerDNS(buf[:k], answers); a != nil {
				_, _ = conn.WriteToUDPAddrPort(a, from)
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	serve(t, n, at.Addr(), at.Port(), func(c *net.TCPConn) {
		// Each message has its length before it (RFC 1035, section 4.2.2).
		var length [2]byte
		for receiveInto(c, length[:]) == nil {
			q := make([]byte, binary.BigEndian.Uint16(length[:]))
			if receiveInto(c, q) != nil {
				return
			}
			a := answerDNS(q, answers)
			_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
		}
	})
}

func receiveInto(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}

// answerDNS answers one question (RFC 1035, section 4): the addresses of its type
// for dnsName, else NXDOMAIN. It returns nil for what is no question.
func answerDNS(q []byte, addrs []netip.Addr) []byte {
	const header, typeA, typeAAAA = 12, 1, 28
	end := header
	var labels []string
	for end < len(q) && q[end] != 0 && end+int(q[end]) < len(q) {
		labels = append(labels, string(q[end+1:end+1+int(q[end])]))
		end += 1 + int(q[end])
	}
	end += 1 + 4 // the root label, type and class
	if end > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[end-4:])
	known := strings.EqualFold(strings.Join(labels, "."), dnsName)
	var records []byte
	count := 0
	for _, a := range addrs {
		if known && (kind == typeA && a.Is4() || kind == typeAAAA && a.Is6()) {
			records = append(records, 0xc0, header) // the name, as in the question
			records = binary.BigEndian.AppendUint16(records, kind)
			records = append(records, 0, 1, 0, 0, 0, 60) // IN, a minute
			records = binary.BigEndian.AppendUint16(records, uint16(len(a.AsSlice())))
			records = append(records, a.AsSlice()...)
			count++
		}
	}
	flags := uint16(0x8580) // an authoritative answer, recursion available
	if !known {
		flags |= 3 // NXDOMAIN
	}
	out := append([]byte(nil), q[:2]...)
	out = binary.BigEndian.AppendUint16(out, flags)
	out = append(out, 0, 1, 0, byte(count), 0, 0, 0, 0)
	return append(append(out, q[header:end]...), records...)
}

// TestDNS looks a name up with dig, over UDP and TCP.
func TestDNS(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	a, aaaa := netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("fd00:2::80")
	eachFamily(t, func(t *testing.T, f family) {
		serveDNS(t, lab.Server, netip.AddrPortFrom(f.server, 53), a, aaaa)
		for _, over := range []string{"+notcp", "+tcp"} {
			for kind, want := range map[string]netip.Addr{"A": a, "AAAA": aaaa} {
				t.Run(over+kind, func(t *testing.T) {
					out, err := lab.Client.Output("dig", "+short", "+time=3", "+tries=1", over,
						"@"+f.server.String(), dnsName, kind)
					if err != nil || strings.TrimSpace(out) != want.String() {
						t.Errorf("dig: %q, %v, want %v", out, err, want)
					}
				})
			}
		}
	})
}

// TestPing wants every address behind the device to answer, in fragments too.
func TestPing(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		for _, size := range []string{"0", "56", "1452", "4000", "20000"} {
			t.Run(size, func(t *testing.T) {
				out, err := lab.Client.Output("ping", f.flag, "-n", "-c", "3", "-i", "0.1", "-W", "3", "-s", size, f.server.String())
				if err != nil || !strings.Contains(out, " 0% packet loss") {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	})
	gw.counts(t, atLeast(2*5*3), "tungate_icmp_echo_replies_total")
}

// TestHopLimit wants a hop limit of 1 to be enough: the gateway is the end of
// every path.
func TestHopLimit(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		out, err := lab.Client.Output("ping", f.flag, "-n", "-c", "1", "-W", "3", "-t", "1", f.server.String())
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestUDPTooLarge sends what UDP cannot carry and wants the kernel's error, and then
// the largest that it can.
func TestUDPTooLarge(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		to := serveUDP(t, lab.Server, netip.AddrPortFrom(f.server, 0))
		c, err := lab.Client.Dial("udp", to.String(), soon)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(make([]byte, maxDatagram)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("write: %v, want EMSGSIZE", err)
		}
		if err := exchangeUDP(lab.Client, to, 65507-40); err != nil { // IPv6's header is 20 bytes longer
			t.Error(err)
		}
	})
}
