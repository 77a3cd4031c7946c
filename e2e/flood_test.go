package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// TestSYNFlood keeps a stream of SYNs from invented clients going, many times more
// than there is room for half-open connections: every real client is served
// meanwhile, and what the flood left is gone soon after.
func TestSYNFlood(t *testing.T) {
	const room, clients = 256, 100
	lab := newLab(t)
	gw := start(t, lab, "echo.yaml", fields{"stack.max_half_open": room, "stack.handshake.timeout": "3s"})
	eachFamily(t, func(t *testing.T, f family) {
		before := events(t, gw, "cookie_sent")
		stop := make(chan struct{})
		flood := background(func() error {
			return lab.Client.Do(func() error { return floodSYNs(netip.AddrPortFrom(f.server, 80), stop) })
		})
		eventually(t, soon, func() error {
			if events(t, gw, "cookie_sent") == before {
				return errors.New("no cookie was sent yet")
			}
			return nil
		})
		for i := range clients {
			began := time.Now()
			c, err := lab.Client.Dial("tcp", netip.AddrPortFrom(f.server, uint16(1000+i)).String(), soon)
			if err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
			deadline(t, c, soon)
			if err := exchange(c); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			_ = c.Close()
			if took := time.Since(began); took > bounded(time.Second) {
				t.Errorf("client %d took %v", i, took)
			}
			if n := gw.metrics(t).Sum("tungate_tcp_half_open"); n > room {
				t.Errorf("%v half-open connections, the bound is %d", n, room)
			}
		}
		close(stop)
		if err := result(t, flood, soon); err != nil {
			t.Fatal(err)
		}
		gw.counts(t, exactly(0), "tungate_tcp_half_open")
	})
}

// events is how often something happened to connections outside the stack.
func events(t *testing.T, gw *running, name string) float64 {
	t.Helper()
	return gw.metrics(t).Sum("tungate_tcp_flow_events_total", `event="`+name+`"`)
}

// floodSYNs writes SYNs of clients that do not exist to the device until stop, some
// thousands a second.
func floodSYNs(to netip.AddrPort, stop chan struct{}) (err error) {
	device, err := openDevice(testutil.TunName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.close()) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		for range 50 {
			if err := device.write(synPacket(invented(to.Addr()), to.Addr(), to.Port())); err != nil {
				return fmt.Errorf("flood: %w", err)
			}
		}
	}
}

// invented is an address on the device's network that nobody has.
func invented(like netip.Addr) netip.Addr {
	if like.Is4() {
		b := [4]byte{198, 18}
		binary.BigEndian.PutUint16(b[2:], uint16(256+rand.IntN(60000)))
		return netip.AddrFrom4(b)
	}
	b := [16]byte{0xfd, 0, 0, 0x18}
	binary.BigEndian.PutUint64(b[8:], rand.Uint64()|1<<32)
	return netip.AddrFrom16(b)
}

// TestStrays: packets of no connection, and such as no TCP sends, get what RFC 9293
// says, within limits, and leave nothing behind.
func TestStrays(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "echo.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		for _, c := range []struct {
			name  string
			flags byte
			event string
		}{
			{"ACK", 0x10, "unknown_reset"},
			{"FIN ACK", 0x11, "unknown_reset"},
			{"RST", 0x04, "unknown_rst"},
			{"SYN ACK", 0x12, "unknown_syn_ack"},
			{"null", 0x00, "odd_flags"},
			{"xmas", 0x29, "odd_flags"},
			{"SYN FIN", 0x03, "odd_flags"},
			{"SYN RST", 0x06, "odd_flags"},
		} {
			before := events(t, gw, c.event)
			p := synPacket(invented(f.server), f.server, 80)
			setFlags(p, c.flags)
			if err := lab.Client.Do(func() error { return writeDevice(testutil.TunName, p) }); err != nil {
				t.Fatal(err)
			}
			eventually(t, soon, func() error {
				if events(t, gw, c.event) == before {
					return fmt.Errorf("%s was not counted as %s", c.name, c.event)
				}
				return nil
			})
		}
		if n := gw.metrics(t).Sum("tungate_tcp_flow_records"); n != 0 {
			t.Errorf("%v records are left", n)
		}
	})
}

// setFlags changes the flags of a TCP packet without options, and its checksum.
func setFlags(p []byte, flags byte) {
	tcp := p[len(p)-20:]
	was := uint32(binary.BigEndian.Uint16(tcp[12:]))
	tcp[13] = flags
	// RFC 1624: HC' = ~(~HC + ~m + m').
	sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + (^was & 0xffff) + uint32(binary.BigEndian.Uint16(tcp[12:]))
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}
