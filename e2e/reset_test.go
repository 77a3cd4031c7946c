package e2e

import (
	"net"
	"net/netip"
	"testing"
)

// TestMassReset: clients that all reset at once are all heard, however many frames
// that is at a time, and who comes next does not wait behind them.
func TestMassReset(t *testing.T) {
	const conns = 8000
	lab := newLab(t)
	gw := start(t, lab, "echo.yaml", fields{"stack.tcp.keepalive_idle": "off"})
	eachFamily(t, func(t *testing.T, f family) {
		before := events(t, gw, "reset_in")
		open := make([]*net.TCPConn, conns)
		together(t, conns, func(i int) error {
			c, err := lab.Client.Dial("tcp", netip.AddrPortFrom(f.server, uint16(1000+i)).String(), long)
			if err != nil {
				return err
			}
			open[i] = c.(*net.TCPConn)
			return open[i].SetLinger(0)
		})
		gw.counts(t, atLeast(conns), "tungate_proxy_flows", `protocol="tcp"`)
		for _, c := range open {
			_ = c.Close()
		}
		next := dial(t, lab.Client, netip.AddrPortFrom(f.server, 7))
		if err := exchange(next); err != nil {
			t.Error(err)
		}
		_ = next.Close()
		gw.counts(t, atLeast(before+conns), "tungate_tcp_flow_events_total", `event="reset_in"`)
		gw.counts(t, exactly(0), "tungate_proxy_flows", `protocol="tcp"`)
	})
	if n := events(t, gw, "reset_later"); n == 0 || n > 2*conns {
		t.Errorf("%v resets were put off of %d: none proves nothing, and none is put off twice", n, 2*conns)
	}
}
