package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestDialAfter answers clients before their upstream is dialled: what works looks
// the same, and a refusal comes as a reset of what had begun.
func TestDialAfter(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"stack.dial": "after"})
	eachFamily(t, func(t *testing.T, f family) {
		echoBulk(t, lab, serve(t, lab.Server, f.server, 0, echo), 20, 4<<20)
		// The reset follows the handshake so closely that connect may tell of it.
		c, err := lab.Client.Dial("tcp", netip.AddrPortFrom(f.server, 1).String(), soon)
		if err == nil {
			defer c.Close()
			deadline(t, c, soon)
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a refused upstream: %v, want ECONNRESET", err)
		}
	})
	gw.counts(t, exactly(0), "tungate_tcp_established")
	gw.counts(t, exactly(0), "tungate_tcp_half_open")
}

// TestReusedPort opens a connection again and again by the very same addresses and
// ports, the one before having been reset a moment ago.
func TestReusedPort(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "echo.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		to := netip.AddrPortFrom(f.server, 7)
		from := netip.AddrPortFrom(f.tun, 33333)
		for i := range 50 {
			d := &net.Dialer{Timeout: soon, LocalAddr: net.TCPAddrFromAddrPort(from)}
			conn, err := lab.Client.DialWith(t.Context(), d, "tcp", to.String())
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			c := conn.(*net.TCPConn)
			deadline(t, c, soon)
			if err := exchange(c); err != nil {
				t.Errorf("round %d: %v", i, err)
			}
			// The client's kernel keeps no TIME_WAIT of a connection it resets,
			// so that it may use the port again at once.
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	})
	gw.counts(t, exactly(0), "tungate_tcp_established")
}
