package e2e

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// TestSilentClient gives a client up whose answers do not come any more: the server
// hears of it, and so does the client, which hears all that it is sent. One whose
// kernel answers is idle for as long as it likes.
func TestSilentClient(t *testing.T) {
	const idle, interval, count = time.Second, time.Second, 2
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{
		"stack.tcp.keepalive_idle": idle.String(), "stack.tcp.keepalive_interval": interval.String(), "stack.tcp.keepalive_count": count,
	})
	for _, rule := range []string{
		"add table inet silence",
		"add chain inet silence output { type filter hook output priority 0; }",
	} {
		if _, err := lab.Client.Output("nft", rule); err != nil {
			t.Fatal(err)
		}
	}
	given := 0
	eachFamily(t, func(t *testing.T, f family) {
		served := make(chan error, 1)
		least := idle + count*interval
		to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) { served <- cut(c, least) })
		idler := dial(t, lab.Client, serve(t, lab.Server, f.server, 0, echo))
		c := dial(t, lab.Client, to)
		rule := fmt.Sprintf("add rule inet silence output oifname %s tcp sport %d drop", testutil.TunName, c.LocalAddr().(*net.TCPAddr).Port)
		if _, err := lab.Client.Output("nft", rule); err != nil {
			t.Fatal(err)
		}
		deadline(t, c, long)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the silent client reads %v, want ECONNRESET", err)
		}
		if err := result(t, served, long); err != nil {
			t.Errorf("its server: %v", err)
		}
		if err := exchange(idler); err != nil {
			t.Errorf("an idle connection: %v", err)
		}
		given++
		gw.counts(t, exactly(float64(given)), "tungate_tcp_flow_events_total", `event="client_silent"`)
		gw.counts(t, atLeast(float64(given*(count+1))), "tungate_tcp_flow_events_total", `event="probe_sent"`)
	})
}
