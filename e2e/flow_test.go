package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// TestBackPressure stops reading at one end: the other end's writes must stop,
// the gateway must not swell, and all bytes must arrive when reading goes on.
func TestBackPressure(t *testing.T) {
	const (
		size    = 128 << 20
		between = 64 << 20 // what may be on the way: both kernels' buffers and the gateway's
		grown   = 48 << 20 // of the gateway's memory meanwhile
	)
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	// stalled waits until n stands still, and judges what was taken by then.
	stalled := func(t *testing.T, n *atomic.Int64, before int64) {
		t.Helper()
		at, err := testutil.Settle(long, 0, func() (int64, error) { return n.Load(), nil })
		if err != nil {
			t.Fatal(err)
		}
		if at == 0 || at > between {
			t.Errorf("%d bytes were taken though nobody read, want at most %d", at, between)
		}
		rss, err := testutil.RSS(gw.PID)
		if err != nil {
			t.Fatal(err)
		}
		if rss-before > grown && !raceBuild() {
			t.Errorf("the gateway grew by %d bytes for one connection", rss-before)
		}
	}
	eachFamily(t, func(t *testing.T, f family) {
		before, err := testutil.RSS(gw.PID)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("client does not read", func(t *testing.T) {
			var sent atomic.Int64
			served := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				served <- errors.Join(send(io.MultiWriter(c, counter{&sent}), 1, size), c.CloseWrite())
			})
			c := dial(t, lab.Client, to)
			stalled(t, &sent, before)
			if err := receive(c, 1, size); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(ended(c), result(t, served, soon)); err != nil {
				t.Error(err)
			}
		})
		t.Run("server does not read", func(t *testing.T) {
			read, served := make(chan struct{}), make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				<-read
				err := receive(c, 2, size)
				if err == nil {
					err = ended(c)
				}
				served <- err
			})
			c := dial(t, lab.Client, to)
			var sent atomic.Int64
			done := background(func() error {
				return errors.Join(send(io.MultiWriter(c, counter{&sent}), 2, size), c.CloseWrite())
			})
			stalled(t, &sent, before)
			close(read)
			if err := errors.Join(result(t, done, long), result(t, served, long)); err != nil {
				t.Error(err)
			}
		})
	})
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// cut wants the connection to end, in whatever way, between after and twice the
// time that takes on a busy machine.
func cut(c net.Conn, after time.Duration) error {
	began := time.Now()
	_, err := io.Copy(io.Discard, c)
	took := time.Since(began)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("read: %w, want the end or ECONNRESET", err)
	}
	if took < after*8/10 || took > after+soon {
		return fmt.Errorf("ended after %v, want %v", took, after)
	}
	return nil
}

// TestIdleTimeout ends a connection on which nothing happens, on both sides, and
// leaves one alone on which a byte goes by now and then.
func TestIdleTimeout(t *testing.T) {
	const idle = 1500 * time.Millisecond
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.idle_timeout": idle.String()})
	eachFamily(t, func(t *testing.T, f family) {
		served := make(chan error, 1)
		quiet := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
			_ = receive(c, 1, 10)
			served <- cut(c, idle)
		})
		lively := serve(t, lab.Server, f.server, 0, echo)
		busy := dial(t, lab.Client, lively)
		beats := background(func() error {
			tick := time.NewTicker(idle / 4)
			defer tick.Stop()
			for began := time.Now(); time.Since(began) < 2*idle; <-tick.C {
				if err := exchange(busy); err != nil {
					return err
				}
			}
			return nil
		})
		c := dial(t, lab.Client, quiet)
		if err := send(c, 1, 10); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(cut(c, idle), result(t, served, soon)); err != nil {
			t.Errorf("idle connection: %v", err)
		}
		if err := result(t, beats, long); err != nil {
			t.Errorf("busy connection: %v", err)
		}
		gw.counts(t, atLeast(1), "tungate_proxy_flows_closed_total", `protocol="tcp"`, `reason="idle"`)
	})
}

// TestDrainTimeout ends a half-closed connection whose other side stays silent.
func TestDrainTimeout(t *testing.T) {
	const drain = 1500 * time.Millisecond
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.drain_timeout": drain.String()})
	eachFamily(t, func(t *testing.T, f family) {
		t.Run("client closed", func(t *testing.T) {
			done := make(chan struct{})
			defer close(done)
			c := dial(t, lab.Client, serve(t, lab.Server, f.server, 0, hold(done)))
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := cut(c, drain); err != nil {
				t.Error(err)
			}
		})
		t.Run("server closed", func(t *testing.T) {
			served := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				if err := c.CloseWrite(); err != nil {
					served <- err
					return
				}
				served <- cut(c, drain)
			})
			c := dial(t, lab.Client, to)
			if err := errors.Join(ended(c), result(t, served, long)); err != nil {
				t.Error(err)
			}
		})
		gw.counts(t, atLeast(2), "tungate_proxy_flows_closed_total", `protocol="tcp"`, `reason="drain"`)
	})
}

// TestUDPIdleTimeout ends sessions that carry nothing and gives their sockets back.
func TestUDPIdleTimeout(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.udp.idle_timeout": "1s"})
	eachFamily(t, func(t *testing.T, f family) {
		to := serveUDP(t, lab.Server, netip.AddrPortFrom(f.server, 0))
		before := gw.usage(t)
		const sessions = 100
		together(t, sessions, func(int) error { return exchangeUDP(lab.Client, to, 100) })
		gw.counts(t, atLeast(1), "tungate_proxy_flows_opened_total", `protocol="udp"`)
		gw.counts(t, exactly(0), "tungate_proxy_flows", `protocol="udp"`)
		// A client that was done early may have left its port to another, and with
		// it its session.
		gw.counts(t, atLeast(sessions*9/10), "tungate_proxy_flows_closed_total", `protocol="udp"`, `reason="idle"`)
		gw.backTo(t, before)
	})
}

// TestUDPSessionLimit makes room for a new session at the bound.
func TestUDPSessionLimit(t *testing.T) {
	const limit = 50
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.udp.max_sessions": limit})
	eachFamily(t, func(t *testing.T, f family) {
		to := serveUDP(t, lab.Server, netip.AddrPortFrom(f.server, 0))
		for range 3 * limit {
			if err := exchangeUDP(lab.Client, to, 100); err != nil {
				t.Fatal(err)
			}
		}
		if open := gw.metrics(t).Sum("tungate_proxy_flows", `protocol="udp"`); open > limit {
			t.Errorf("%v sessions, the limit is %d", open, limit)
		}
		gw.counts(t, atLeast(limit), "tungate_proxy_udp_sessions_evicted_total")
	})
}

// TestLoss drops one frame in fifty on the device, both ways: every byte arrives
// all the same.
func TestLoss(t *testing.T) {
	const size = 10 << 20
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	for _, chain := range []struct{ hook, match string }{{"prerouting", "iifname"}, {"postrouting", "oifname"}} {
		rules := []string{
			"add table inet loss",
			"add chain inet loss " + chain.hook + " { type filter hook " + chain.hook + " priority -300; }",
			"add rule inet loss " + chain.hook + " " + chain.match + " " + testutil.TunName + " numgen random mod 100 < 2 drop",
		}
		for _, rule := range rules {
			if _, err := lab.Client.Output("nft", rule); err != nil {
				t.Fatal(err)
			}
		}
	}
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		together(t, 4, func(i int) error {
			c, err := lab.Client.Dial("tcp", to.String(), long)
			if err != nil {
				return err
			}
			defer c.Close()
			return echoed(c, uint64(i), size)
		})
	})
	gw.counts(t, atLeast(1), "tungate_tcp_retransmits_total")
}
