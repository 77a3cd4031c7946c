package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
)

// TestUDPIdle ends sessions by the timeout of their port, and no sooner.
func TestUDPIdle(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		dns := netip.AddrPortFrom(id.Client.Addr(), 53)
		for name, tc := range map[string]struct {
			udp         UDPOptions
			first, last uint16 // the ports of the clients whose sessions end first and last
			at, later   time.Duration
		}{
			"defaults":   {UDPOptions{}, 2, 1, 10 * time.Second, time.Minute},
			"DNS longer": {UDPOptions{IdleTimeout: time.Minute, DNSTimeout: time.Hour}, 1, 2, time.Minute, time.Hour},
		} {
			t.Run(name, func(t *testing.T) {
				r := newUDPRig(t, e, id, Options{UDP: tc.udp, Forward: map[netip.AddrPort]netip.AddrPort{dns: {}}})
				r.exchange(r.flow(1), "long")
				query := r.flow(2)
				query.Destination = dns
				from := r.exchange(query, "query")
				age := func(by time.Duration, want ...uint16) {
					t.Helper()
					r.age(by)
					r.wantOpen(want...)
				}
				age(tc.at/2, 1, 2)
				age(tc.at/2, tc.last)
				r.wantEnd(tc.first, flow.ReasonIdle)
				age((tc.later-tc.at)/2, tc.last)
				age((tc.later - tc.at) / 2)
				r.wantEnd(tc.last, flow.ReasonIdle)
				if r.exchange(query, "another") == from {
					t.Error("a session that ended still has its socket")
				}
			})
		}
	})
}

// TestUDPActive: a datagram either way keeps a session.
func TestUDPActive(t *testing.T) {
	r := newUDPRig(t, onLoop, flows(flow.UDP)["ipv4"], Options{})
	r.exchange(r.flow(1), "a")
	from := r.exchange(r.flow(2), "b")
	r.exchange(r.flow(3), "c")
	r.wantOpen(1, 2, 3)
	r.age(time.Minute / 2)
	r.exchange(r.flow(1), "up")
	r.wantOpen(2, 3, 1)
	if _, err := r.peer.WriteToUDPAddrPort([]byte("down"), from); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer counts as use", func() bool { return fmt.Sprint(r.open()) == "[3 1 2]" })
	r.age(time.Minute / 2)
	r.wantOpen(1, 2)
	r.wantEnd(3, flow.ReasonIdle)
}

// TestUDPLimit makes room by ending what was idle longest.
func TestUDPLimit(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{UDP: UDPOptions{MaxSessions: 3}})
		for port := range uint16(3) {
			r.exchange(r.flow(1+port), "x")
		}
		r.exchange(r.flow(1), "used again")
		r.exchange(r.flow(4), "new")
		r.wantEnd(2, flow.ReasonEvicted)
		r.wantOpen(3, 1, 4)
		r.exchange(r.flow(5), "new")
		r.wantEnd(3, flow.ReasonEvicted)
		r.wantOpen(1, 4, 5)
		s := r.d.Stats()
		if s.UDPSessionLimit != 2 || s.UDP.Open != 3 || s.UDP.Opened != 5 || s.UDP.Closed[flow.ReasonEvicted] != 2 {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestUDPSameFlow: readers that meet a new flow at once make one session.
func TestUDPSameFlow(t *testing.T) {
	const count, readers = 300, 4
	before := descriptors()
	r := newUDPRig(t, simple, flows(flow.UDP)["ipv4"], Options{})
	for port := range uint16(count) {
		var wg sync.WaitGroup
		ready := make(chan struct{})
		for range readers {
			wg.Go(func() {
				<-ready
				r.send(r.flow(1+port), "x")
			})
		}
		close(ready)
		wg.Wait()
	}
	if s := r.d.Stats().UDP; s.Opened != count || len(r.open()) != count {
		t.Errorf("%d sessions were opened for %d flows", s.Opened, count)
	}
	r.stop()
	_ = r.peer.Close()
	if left := descriptors() - before; left != 0 {
		t.Errorf("%d descriptors left", left)
	}
}

// TestUDPJoins: when Run has returned, nothing more is written to a client.
func TestUDPJoins(t *testing.T) {
	r := newUDPRig(t, onLoop, flows(flow.UDP)["ipv4"], Options{})
	w := slowWriter{in: make(chan struct{}), out: make(chan struct{})}
	release := sync.OnceFunc(func() { close(w.out) })
	t.Cleanup(release)
	if !r.d.HandleDatagram(w, r.id, []byte("x")) {
		t.Fatal("nobody is there")
	}
	_, from := r.peer.receive(t)
	if _, err := r.peer.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	await(t, "the answer", w.in)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.stop()
	}()
	soon := time.NewTimer(30 * time.Millisecond)
	defer soon.Stop()
	select {
	case <-stopped:
		t.Error("Run returned before the last write")
	case <-soon.C:
	}
	release()
	await(t, "the end", stopped)
	r.wantEnd(40000, flow.ReasonShutdown)
}

// TestUDPFlood: a session that is flooded can be closed all the same.
func TestUDPFlood(t *testing.T) {
	r := newUDPRig(t, onLoop, flows(flow.UDP)["ipv4"], Options{})
	w := &flooded{more: make(chan struct{}, 1), again: r.peer}
	if !r.d.HandleDatagram(w, r.id, []byte("x")) {
		t.Fatal("nobody is there")
	}
	_, to := r.peer.receive(t)
	w.to.Store(&to)
	if _, err := r.peer.WriteToUDPAddrPort([]byte("first"), to); err != nil {
		t.Fatal(err)
	}
	await(t, "the flood", w.more)
	r.stop()
	r.wantEnd(40000, flow.ReasonShutdown)
}

// flooded is a client whose every datagram brings the next one at once, so that the
// socket never runs dry.
type flooded struct {
	flow.DatagramWriter
	more  chan struct{}
	again *peer
	to    atomic.Pointer[netip.AddrPort]
}

func (f *flooded) WriteDatagram(flow.ID, netip.AddrPort, []byte) error {
	_, _ = f.again.WriteToUDPAddrPort([]byte("more"), *f.to.Load())
	select {
	case f.more <- struct{}{}:
	default:
	}
	return nil
}

// slowWriter takes its time over a datagram.
type slowWriter struct {
	flow.DatagramWriter
	in, out chan struct{}
}

func (w slowWriter) WriteDatagram(flow.ID, netip.AddrPort, []byte) error {
	close(w.in)
	<-w.out
	return nil
}

// TestUDPConcurrent lets many readers use the same few flows while sessions are
// evicted, reaped and at last shut down, and wants the books to balance.
func TestUDPConcurrent(t *testing.T) {
	before := descriptors()
	r := newUDPRig(t, simple, flows(flow.UDP)["ipv4"], Options{UDP: UDPOptions{MaxSessions: 8}})
	go r.peer.echo()
	go func() {
		for range r.w.got {
			continue
		}
	}()
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 0))
			for i := range 1000 {
				r.send(r.flow(uint16(rng.IntN(12))), "x")
				if i%100 == 0 {
					r.age(time.Duration(rng.IntN(2)) * time.Hour)
				}
				if i == 900 && g == 0 {
					r.stop()
				}
			}
		})
	}
	wg.Wait()
	s := r.d.Stats().UDP
	var closed uint64
	for _, n := range s.Closed {
		closed += n
	}
	if s.Open != 0 || s.Opened != closed || closed != uint64(len(r.records)) || len(r.d.udp.own.m) != 0 {
		t.Errorf("%d open, %d opened, %d closed, %d recorded, %d of our own", s.Open, s.Opened, closed, len(r.records), len(r.d.udp.own.m))
	}
	r.wantOpen()
	_ = r.peer.Close()
	if left := descriptors() - before; left != 0 {
		t.Errorf("%d descriptors left", left)
	}
	close(r.w.got)
}
