package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestOrder numbers the datagrams of many flows while bulk flows keep every queue
// busy: the echo of each flow comes back in the order it was sent in, both ways
// through whatever queue, though some may be lost.
func TestOrder(t *testing.T) {
	for _, device := range []string{"tun queues=2", "tap queues=2", "tun queues=4 no-tso4 no-tso6"} {
		for _, relay := range []string{"reactor", "simple"} {
			t.Run(device+" "+relay, func(t *testing.T) {
				t.Setenv(deviceEnv, device)
				lab := newLab(t)
				gw := start(t, lab, "echo.yaml", fields{"proxy.relay": relay})
				eachFamily(t, func(t *testing.T, f family) {
					// Packets that wait for a neighbor leave Linux beside later ones.
					if err := exchange(dial(t, lab.Client, netip.AddrPortFrom(f.server, 7))); err != nil {
						t.Fatal(err)
					}
					stop := make(chan struct{})
					bulk := background(func() error { return keepBusy(t, gw, f, stop) })
					together(t, 16, func(i int) error {
						c, err := lab.Client.Dial("udp", netip.AddrPortFrom(f.server, uint16(7000+i)).String(), soon)
						if err != nil {
							return err
						}
						defer c.Close()
						return inOrder(c)
					})
					close(stop)
					if err := result(t, bulk, long); err != nil {
						t.Error(err)
					}
				})
				m := gw.metrics(t)
				for _, q := range []string{"0", "1"} {
					if m.Sum("tungate_device_frames_total", `queue="`+q+`"`, `direction="rx"`) == 0 ||
						m.Sum("tungate_device_frames_total", `queue="`+q+`"`, `direction="tx"`) == 0 {
						t.Errorf("nothing came in, or nothing left, by queue %s", q)
					}
				}
			})
		}
	}
}

// keepBusy echoes bulk on a few connections until stop.
func keepBusy(t *testing.T, gw *running, f family, stop chan struct{}) error {
	t.Helper()
	const flows = 4
	errs := make(chan error, flows)
	for i := range flows {
		go func() {
			c, err := gw.lab.Client.Dial("tcp", netip.AddrPortFrom(f.server, uint16(9000+i)).String(), soon)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					errs <- nil
					return
				default:
				}
				deadline(t, c, long)
				sent := background(func() error { return send(c, uint64(i), 1<<20) })
				if err := errors.Join(receive(c, uint64(i), 1<<20), <-sent); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var err error
	for range flows {
		err = errors.Join(err, <-errs)
	}
	return err
}

// inOrder sends numbers for a while and wants each echo to be of a higher one than
// the last, and most of them.
func inOrder(c net.Conn) error {
	const (
		count = 2000
		burst = 8
	)
	var got, last uint64
	b := make([]byte, 1500)
	for n := uint64(1); n <= count; n++ {
		binary.BigEndian.PutUint64(b, n)
		if _, err := c.Write(b[:8+n%400]); err != nil {
			return err
		}
		if n%burst != 0 {
			continue
		}
		for last < n {
			if err := c.SetReadDeadline(time.Now().Add(soon / 10)); err != nil {
				return err
			}
			if _, err := c.Read(b); err != nil {
				break // lost
			}
			now := binary.BigEndian.Uint64(b)
			if now <= last {
				return fmt.Errorf("%d came after %d", now, last)
			}
			got, last = got+1, now
		}
	}
	if got < count*9/10 {
		return fmt.Errorf("%d of %d came back", got, count)
	}
	return nil
}
