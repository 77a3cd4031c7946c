package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// TestManyConnections has 2,000 connections open at once, each of which echoes
// 64 KB, and wants the gateway back where it was when they are closed.
func TestManyConnections(t *testing.T) {
	const conns, size = 2000, 64 << 10
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		if err := exchange(dial(t, lab.Client, to)); err != nil { // whatever is made at first use
			t.Fatal(err)
		}
		before := gw.usage(t)
		open := make([]*net.TCPConn, conns)
		together(t, conns, func(i int) error {
			c, err := lab.Client.Dial("tcp", to.String(), long)
			if err != nil {
				return err
			}
			open[i] = c.(*net.TCPConn)
			return c.SetDeadline(time.Now().Add(2 * long))
		})
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		gw.counts(t, atLeast(conns), "tungate_proxy_flows", `protocol="tcp"`)
		together(t, conns, func(i int) error {
			seed := uint64(i)
			sent := background(func() error {
				return errors.Join(send(open[i], seed, size), open[i].CloseWrite())
			})
			err := receive(open[i], seed, size)
			if err == nil {
				err = ended(open[i])
			}
			return errors.Join(err, <-sent)
		})
		for _, c := range open {
			c.Close()
		}
		gw.backTo(t, before)
	})
}

// usage is what a leak would show in.
type usage struct {
	goroutines, fds int
}

func (r *running) usage(t *testing.T) usage {
	t.Helper()
	fds, err := testutil.FDs(r.PID)
	if err != nil {
		t.Fatal(err)
	}
	return usage{int(r.metrics(t).Sum("go_goroutines")), fds}
}

// backTo waits until the gateway holds no more than before.
func (r *running) backTo(t *testing.T, before usage) {
	t.Helper()
	const slack = 2 // a scrape of ours may be seen ending
	eventually(t, long, func() error {
		now := r.usage(t)
		if now.goroutines > before.goroutines+slack || now.fds > before.fds+slack {
			return fmt.Errorf("%+v, before the connections %+v", now, before)
		}
		return nil
	})
}

// TestHalfClose ends one direction and then moves 10 MB in the other, in both
// orders.
func TestHalfClose(t *testing.T) {
	const size = 10 << 20
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		t.Run("client first", func(t *testing.T) {
			served := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				err := receive(c, 1, 1000)
				if err == nil {
					err = ended(c)
				}
				served <- errors.Join(err, send(c, 2, size), c.CloseWrite())
			})
			c := dial(t, lab.Client, to)
			if err := errors.Join(send(c, 1, 1000), c.CloseWrite()); err != nil {
				t.Fatal(err)
			}
			if err := receive(c, 2, size); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(ended(c), result(t, served, soon)); err != nil {
				t.Error(err)
			}
		})
		t.Run("server first", func(t *testing.T) {
			served := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				err := errors.Join(send(c, 3, 1000), c.CloseWrite())
				if err == nil {
					err = receive(c, 4, size)
				}
				if err == nil {
					err = ended(c)
				}
				served <- err
			})
			c := dial(t, lab.Client, to)
			if err := receive(c, 3, 1000); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(ended(c), send(c, 4, size), c.CloseWrite(), result(t, served, soon)); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestRefused wants a port without a listener to look like one.
func TestRefused(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		within(t, time.Second, "a refused connection", func() {
			c, err := lab.Client.Dial("tcp", netip.AddrPortFrom(f.server, 9).String(), long)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial: %v, want ECONNREFUSED", err)
			}
		})
		gw.counts(t, atLeast(1), "tungate_proxy_dials_total", `protocol="tcp"`, `result="refused"`)
	})
}

// TestSilentUpstream dials many addresses that answer nothing: they give up after
// connect_timeout, their slots come back, and nobody else waits for them.
func TestSilentUpstream(t *testing.T) {
	const silent, timeout = 200, 2 * time.Second
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", fields{"proxy.connect_timeout": timeout.String()})
	eachFamily(t, func(t *testing.T, f family) {
		before := gw.metrics(t).Sum("tungate_proxy_dials_total", `result="timeout"`)
		to := serve(t, lab.Server, f.server, 0, echo)
		ctx, cancel := context.WithTimeout(t.Context(), timeout+time.Second/2)
		defer cancel()
		began := time.Now()
		done := background(func() error { return dialSilent(ctx, lab, f, silent) })
		// As many as there are threads to dial from wait at once.
		gw.counts(t, atLeast(20), "tungate_tcp_half_open")
		within(t, time.Second, "a connection beside silent ones", func() {
			if err := dialBeside(lab, to); err != nil {
				t.Error(err)
			}
		})
		if err := result(t, done, long); err != nil {
			t.Error(err)
		}
		gw.counts(t, atLeast(before+20), "tungate_proxy_dials_total", `protocol="tcp"`, `result="timeout"`)
		if took := time.Since(began); took < timeout {
			t.Errorf("gave up after %v, connect_timeout is %v", took, timeout)
		}
		gw.counts(t, exactly(0), "tungate_tcp_half_open")
	})
}

// dialSilent dials an address that answers nothing from n sockets at once, and
// fails if one connects.
func dialSilent(ctx context.Context, lab *testutil.Lab, f family, n int) error {
	failed := make(chan error, n)
	for i := range n {
		go func() {
			_, err := lab.Client.DialContext(ctx, "tcp", netip.AddrPortFrom(f.silent, uint16(1000+i)).String())
			if err == nil {
				failed <- errors.New("a silent address answered")
				return
			}
			failed <- nil
		}()
	}
	var errs []error
	for range n {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// dialBeside connects and exchanges from a thread that no other dial holds.
func dialBeside(lab *testutil.Lab, to netip.AddrPort) error {
	var c net.Conn
	err := lab.Client.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), soon)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return err
	}
	return exchange(c)
}

// TestAbort resets a connection on one side and wants the reset on the other.
func TestAbort(t *testing.T) {
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	reset := func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }
	wantReset := func(c *net.TCPConn) error {
		_, err := io.Copy(io.Discard, c)
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("read: %w, want ECONNRESET", err)
		}
		return nil
	}
	eachFamily(t, func(t *testing.T, f family) {
		t.Run("client", func(t *testing.T) {
			seen := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				if err := receive(c, 1, 10); err != nil {
					seen <- err
					return
				}
				if _, err := c.Write([]byte("x")); err != nil {
					seen <- err
					return
				}
				seen <- wantReset(c)
			})
			c := dial(t, lab.Client, to)
			if err := errors.Join(send(c, 1, 10), receiveAny(c, 1), reset(c)); err != nil {
				t.Fatal(err)
			}
			if err := result(t, seen, soon); err != nil {
				t.Error(err)
			}
			gw.counts(t, atLeast(1), "tungate_proxy_flows_closed_total", `protocol="tcp"`, `reason="client_reset"`)
		})
		t.Run("upstream", func(t *testing.T) {
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) {
				_ = receive(c, 1, 10)
				_ = reset(c)
			})
			c := dial(t, lab.Client, to)
			if err := errors.Join(send(c, 1, 10), wantReset(c)); err != nil {
				t.Error(err)
			}
			gw.counts(t, atLeast(1), "tungate_proxy_flows_closed_total", `protocol="tcp"`, `reason="upstream_reset"`)
		})
		t.Run("with bytes under way", func(t *testing.T) {
			seen := make(chan error, 1)
			to := serve(t, lab.Server, f.server, 0, func(c *net.TCPConn) { seen <- wantReset(c) })
			c := dial(t, lab.Client, to)
			if err := errors.Join(send(c, 1, 1<<20), reset(c)); err != nil {
				t.Fatal(err)
			}
			if err := result(t, seen, soon); err != nil {
				t.Error(err)
			}
		})
	})
	gw.counts(t, exactly(0), "tungate_proxy_flows", `protocol="tcp"`)
}

// receiveAny reads n bytes, whatever they are.
func receiveAny(r io.Reader, n int) error {
	_, err := io.ReadFull(r, make([]byte, n))
	return err
}

// TestSmallWrites moves many small messages in both directions at once.
func TestSmallWrites(t *testing.T) {
	const messages = 2000
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		to := serve(t, lab.Server, f.server, 0, echo)
		together(t, 20, func(i int) error {
			c, err := lab.Client.Dial("tcp", to.String(), soon)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(long)); err != nil {
				return err
			}
			for n := range messages {
				if err := exchange(c); err != nil {
					return fmt.Errorf("connection %d, message %d: %w", i, n, err)
				}
			}
			return nil
		})
	})
}
