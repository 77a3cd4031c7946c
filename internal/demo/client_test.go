package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const testSeed = 42

// serve returns a server on the loopback, without any gateway between.
func serve(t *testing.T) *server {
	t.Helper()
	s, err := listen(t.Context(), netip.AddrFrom4([4]byte{127, 0, 0, 1}), testSeed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func testPlan(p ports) plan {
	return plan{
		Seed: testSeed, Limit: 20 * time.Second, Families: []target{{"IPv4", p}},
		load: load{Connections: 10, AtOnce: 4, Idle: 5, RoundTrips: 20, Patience: 10 * time.Second, Bulk: time.Millisecond},
	}
}

// play runs the client to its end and returns its events.
func play(t *testing.T, p plan) ([]event, error) {
	t.Helper()
	in, answers := io.Pipe()
	events, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := runClient(t.Context(), p, in, out)
		_ = out.Close()
		done <- err
	}()
	var all []event
	lines := bufio.NewScanner(events)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
		if e.Sample != "" {
			_, _ = io.WriteString(answers, "\n")
		}
	}
	return all, <-done
}

func TestClient(t *testing.T) {
	s := serve(t)
	p := testPlan(s.ports)
	events, err := play(t, p)
	if err != nil {
		t.Fatal(err)
	}
	var samples []string
	for _, e := range events {
		if e.Sample != "" {
			samples = append(samples, e.Sample)
		}
	}
	if strings.Join(samples, " ") != "base idle" {
		t.Errorf("samples: %v", samples)
	}
	r := events[len(events)-1].Result
	if r == nil || r.Idle != 5 || len(r.Families) != 1 {
		t.Fatalf("results: %+v", r)
	}
	f := r.Families[0]
	if f.Connections != 10 || f.ConnectTime <= 0 || f.P50 <= 0 || f.P99 < f.P50 || f.Up.Bytes < recordSize || f.Down.Bytes < recordSize {
		t.Errorf("results: %+v", f)
	}
	if want := 10*bodySize + 5 + 20 + f.Up.Bytes + f.Down.Bytes; r.Checked != want {
		t.Errorf("%d bytes checked, want %d", r.Checked, want)
	}
}

// meddler passes connections on to a server and changes one byte of what goes by.
type meddler struct {
	net.Listener
	to   netip.AddrPort
	down bool  // of the server's bytes
	at   int64 // which byte
	hits atomic.Int64
	wg   sync.WaitGroup
}

// meddle returns the address of a meddler.
func meddle(t *testing.T, to netip.AddrPort, down bool, at int64) (netip.AddrPort, *meddler) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meddler{Listener: l, to: to, down: down, at: at}
	m.wg.Go(m.run)
	t.Cleanup(func() { _ = l.Close(); m.wg.Wait() })
	return netip.MustParseAddrPort(l.Addr().String()), m
}

func (m *meddler) run() {
	for {
		c, err := m.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", m.to.String())
		if err != nil {
			_ = c.Close()
			continue
		}
		var both sync.WaitGroup
		both.Go(func() { m.pass(s, c, !m.down) })
		both.Go(func() { m.pass(c, s, m.down) })
		m.wg.Go(func() { both.Wait(); _, _ = c.Close(), s.Close() })
	}
}

func (m *meddler) pass(to, from net.Conn, change bool) {
	b := make([]byte, 64<<10)
	for pos := int64(0); ; {
		n, err := from.Read(b)
		if i := m.at - pos; change && i >= 0 && i < int64(n) {
			b[i] ^= 0x20
			m.hits.Add(1)
		}
		pos += int64(n)
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// TestClientFindsChanges: one byte of one step is enough to fail, in words that say
// which.
func TestClientFindsChanges(t *testing.T) {
	for _, c := range []struct {
		name string
		port func(*ports) *netip.AddrPort
		down bool
		at   int64
		says string
	}{
		{"http down", func(p *ports) *netip.AddrPort { return &p.HTTP }, true, 20_000, "connections over IPv4: download "},
		{"http up", func(p *ports) *netip.AddrPort { return &p.HTTP }, false, 20_000, "connections over IPv4: upload "},
		{"echo", func(p *ports) *netip.AddrPort { return &p.Echo }, true, 0, "idle connections: byte 0x"},
		{"round trip", func(p *ports) *netip.AddrPort { return &p.Echo }, false, 7, "round trips over IPv4: byte 0x07 came back as 0x27"},
		{"bulk up", func(p *ports) *netip.AddrPort { return &p.Bulk }, false, 500_000, "bulk up over IPv4: byte 499999 "},
		{"bulk down", func(p *ports) *netip.AddrPort { return &p.Bulk }, true, 500_000, "bulk down over IPv4: byte 500000 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := testPlan(serve(t).ports)
			port := c.port(&p.Families[0].ports)
			var m *meddler
			*port, m = meddle(t, *port, c.down, c.at)
			events, err := play(t, p)
			if m.hits.Load() == 0 {
				t.Fatal("nothing was changed")
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
			if last := events[len(events)-1]; last.Failed != err.Error() || strings.Contains(last.Failed, "\n") {
				t.Errorf("told: %+v", last)
			}
		})
	}
}

func TestClientRefused(t *testing.T) {
	s, err := listen(t.Context(), netip.AddrFrom4([4]byte{127, 0, 0, 1}), testSeed)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := play(t, testPlan(s.ports)); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

// TestClientLimit: a server that never answers is given up, and the step named.
func TestClientLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := testPlan(serve(t).ports)
	p.Limit = 200 * time.Millisecond
	p.Families[0].Bulk = netip.MustParseAddrPort(l.Addr().String())
	_, err = play(t, p)
	const want = "bulk up over IPv4: it was not done within 200ms"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestClientPatience: on a slow machine the demo is shorter, not longer.
func TestClientPatience(t *testing.T) {
	p := testPlan(serve(t).ports)
	p.Connections, p.RoundTrips, p.Patience = 1<<30, 1<<30, 50*time.Millisecond
	events, err := play(t, p)
	if err != nil {
		t.Fatal(err)
	}
	r := events[len(events)-1].Result
	if f := r.Families[0]; f.Connections < 1 || f.Connections == 1<<30 || f.AtOnce > p.AtOnce || f.P50 <= 0 {
		t.Errorf("results: %+v", f)
	}
}

func TestEach(t *testing.T) {
	var seen [100]atomic.Int64
	c := &client{plan: testPlan(ports{})}
	n, err := c.each(len(seen), func(i int) error { seen[i].Add(1); return nil })
	if n != len(seen) || err != nil {
		t.Errorf("%d calls, %v", n, err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("%d was done %d times", i, n)
		}
	}
	c.plan.AtOnce = 1
	if n, err := c.each(100, func(int) error { return context.Canceled }); !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
}
