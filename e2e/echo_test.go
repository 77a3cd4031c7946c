package e2e

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// anywhere is the i-th of many destinations that nobody owns, with a port of its
// own.
func anywhere(f family, i int) netip.AddrPort {
	port := uint16(1 + (i*7919)%65535)
	if f.server.Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%250)}), port)
	}
	a := f.server.As16()
	binary.BigEndian.PutUint32(a[8:], uint32(i)*2654435761)
	return netip.AddrPortFrom(netip.AddrFrom16(a), port)
}

// TestEcho wants every address and port to answer, over TCP and UDP.
func TestEcho(t *testing.T) {
	const destinations = 250
	lab := newLab(t)
	gw := start(t, lab, "echo.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		t.Run("tcp", func(t *testing.T) {
			before := gw.usage(t)
			together(t, destinations, func(i int) error {
				c, err := lab.Client.Dial("tcp", anywhere(f, i).String(), long)
				if err != nil {
					return err
				}
				defer c.Close()
				return echoed(c, uint64(i), 64<<10)
			})
			gw.backTo(t, before)
		})
		t.Run("bulk", func(t *testing.T) {
			c := dial(t, lab.Client, anywhere(f, 1))
			if err := echoed(c, 1, 100<<20); err != nil {
				t.Error(err)
			}
		})
		t.Run("udp", func(t *testing.T) {
			together(t, destinations, func(i int) error { return exchangeUDP(lab.Client, anywhere(f, i), i) })
		})
		t.Run("udp sizes", func(t *testing.T) {
			for _, size := range []int{0, 1, 1472, 8000, 60000} {
				if err := exchangeUDP(lab.Client, anywhere(f, size), size); err != nil {
					t.Error(err)
				}
			}
		})
	})
	gw.counts(t, exactly(0), "tungate_proxy_flows", `protocol="tcp"`)
}

// echoed sends a pattern, ends its side, and wants all of it back and then the end.
func echoed(c net.Conn, seed uint64, size int64) error {
	if err := c.SetDeadline(time.Now().Add(long)); err != nil {
		return err
	}
	sent := background(func() error {
		return errors.Join(send(c, seed, size), c.(*net.TCPConn).CloseWrite())
	})
	err := receive(c, seed, size)
	if err == nil {
		err = ended(c)
	} else {
		c.Close() // or the sender waits for ever
	}
	return errors.Join(err, <-sent)
}

// TestEchoBackPressure writes without reading: the echo handler must stop taking.
func TestEchoBackPressure(t *testing.T) {
	const most = 64 << 20
	lab := newLab(t)
	start(t, lab, "echo.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		c := dial(t, lab.Client, anywhere(f, 3))
		if err := c.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(c, io.LimitReader(pattern(5), 2*most))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("wrote %d bytes that nobody read: %v", n, err)
		}
		if n > most {
			t.Errorf("the echo took %d bytes that nobody read back", n)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		// io.Copy counts what the kernel took before the deadline; a part of the
		// last chunk may have gone, too.
		if err := receive(c, 5, n); err != nil {
			t.Error(err)
		}
	})
}
