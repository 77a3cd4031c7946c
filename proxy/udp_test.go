package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// datagram is one that a handler sent to a client, or a rejection.
type datagram struct {
	id       flow.ID
	from     netip.AddrPort
	payload  []byte
	rejected bool
}

// clients is a flow.DatagramWriter that keeps what it is given.
type clients struct{ got chan datagram }

func newClients() *clients { return &clients{got: make(chan datagram, 1000)} }

func (c *clients) WriteDatagram(id flow.ID, from netip.AddrPort, payload []byte) error {
	c.got <- datagram{id: id, from: from, payload: bytes.Clone(payload)}
	return nil
}

func (c *clients) RejectDatagram(id flow.ID) { c.got <- datagram{id: id, rejected: true} }

// peer is a UDP server that a test answers for.
type peer struct {
	*net.UDPConn
	at netip.AddrPort
}

func newPeer(t *testing.T, at netip.AddrPort) *peer {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{c, c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// receive returns the next datagram and who sent it.
func (p *peer) receive(t *testing.T) ([]byte, netip.AddrPort) {
	t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, maxDatagram)
	n, from, err := p.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// echo answers everything until the peer is closed.
func (p *peer) echo() {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := p.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = p.WriteToUDPAddrPort(b[:n], from)
	}
}

// udpRig is a running handler and a server for it.
type udpRig struct {
	t       *testing.T
	d       *direct
	w       *clients
	peer    *peer
	id      flow.ID // to the peer
	records chan Record
	stop    func()
}

func newUDPRig(t *testing.T, id flow.ID, o Options) *udpRig {
	t.Helper()
	r := &udpRig{t: t, w: newClients(), peer: newPeer(t, id.Destination), id: id, records: make(chan Record, 10_000)}
	r.id.Destination = r.peer.at
	o.Allow = []Class{ClassLoopback}
	for from := range o.Forward {
		o.Forward[from] = r.peer.at
	}
	h, err := New(o, func(rec Record) { r.records <- rec })
	if err != nil {
		t.Fatal(err)
	}
	r.d = h.(*direct)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// flow returns the rig's flow with another client port.
func (r *udpRig) flow(port uint16) flow.ID {
	id := r.id
	id.Client = netip.AddrPortFrom(id.Client.Addr(), port)
	return id
}

// send lets the client of id send.
func (r *udpRig) send(id flow.ID, payload string) bool {
	return r.d.HandleDatagram(r.w, id, []byte(payload))
}

// exchange sends on id and returns the peer's view of who sent.
func (r *udpRig) exchange(id flow.ID, payload string) netip.AddrPort {
	r.t.Helper()
	if !r.send(id, payload) {
		r.t.Fatalf("%v: nobody is there", id)
	}
	got, from := r.peer.receive(r.t)
	if string(got) != payload {
		r.t.Fatalf("the peer got %d bytes, want %d", len(got), len(payload))
	}
	return from
}

// open lists the clients' ports that have a session, longest idle first.
func (r *udpRig) open() []uint16 {
	u := r.d.udp
	u.mu.Lock()
	defer u.mu.Unlock()
	var ports []uint16
	for e := u.order.Front(); e != nil; e = e.Next() {
		ports = append(ports, e.Value.(*session).id.Client.Port())
	}
	if len(ports) != len(u.byID) {
		r.t.Errorf("%d sessions in order, %d in the table", len(ports), len(u.byID))
	}
	return ports
}

func (r *udpRig) wantOpen(want ...uint16) {
	r.t.Helper()
	if got := r.open(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("sessions of ports %v, want %v", got, want)
	}
}

// wantEnd waits for the record of a session's end.
func (r *udpRig) wantEnd(port uint16, reason flow.CloseReason) Record {
	r.t.Helper()
	rec := await(r.t, "the session's end", r.records)
	if rec.ID.Client.Port() != port || rec.Reason != reason || rec.Result != DialOK {
		r.t.Errorf("ended: port %d, %v (%v); want %d, %v", rec.ID.Client.Port(), rec.Reason, rec.Result, port, reason)
	}
	return rec
}

// TestUDP passes datagrams of all sizes both ways, each as it was.
func TestUDP(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		r := newUDPRig(t, id, Options{})
		go r.peer.echo()
		total := 0
		for i, n := range []int{1, 0, 512, 1472, 9000, 65507, 0, 2} {
			want := bytesOf(uint64(i), n)
			if !r.d.HandleDatagram(r.w, r.id, want) {
				t.Fatal("nobody is there")
			}
			got := await(t, "the answer", r.w.got)
			if got.id != r.id || got.from != r.id.Destination || got.rejected || !bytes.Equal(got.payload, want) {
				t.Fatalf("%d bytes were answered by %d to %v from %v, rejected %v", n, len(got.payload), got.id, got.from, got.rejected)
			}
			total += n
		}
		r.stop()
		rec := r.wantEnd(40000, flow.ReasonShutdown)
		if rec.Up != uint64(total) || rec.Down != uint64(total) || rec.Upstream != r.peer.at {
			t.Errorf("recorded %+v, want %d bytes each way", rec, total)
		}
		s := r.d.Stats().UDP
		if s.BytesUp != uint64(total) || s.BytesDown != uint64(total) || s.Opened != 1 || s.Open != 0 || s.Dials[DialOK] != 1 || s.Closed[flow.ReasonShutdown] != 1 {
			t.Errorf("counted %+v", s)
		}
		if r.send(r.id, "late") {
			t.Error("a datagram was taken after the end")
		}
	})
}

// TestUDPMapping: a flow keeps its upstream port, and has it alone.
func TestUDPMapping(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		r := newUDPRig(t, id, Options{})
		one := r.exchange(r.flow(1), "a")
		two := r.exchange(r.flow(2), "b")
		if one == two {
			t.Errorf("two flows come from %v", one)
		}
		if again := r.exchange(r.flow(1), "c"); again != one {
			t.Errorf("a flow came from %v, then from %v", one, again)
		}
		// A stranger has nothing to say to a client.
		stranger := newPeer(t, id.Destination)
		if _, err := stranger.WriteToUDPAddrPort([]byte("spoofed"), one); err != nil {
			t.Fatal(err)
		}
		if _, err := r.peer.WriteToUDPAddrPort([]byte("answer"), one); err != nil {
			t.Fatal(err)
		}
		if got := await(t, "the answer", r.w.got); string(got.payload) != "answer" {
			t.Errorf("the client got %q", got.payload)
		}
	})
}

// TestUDPForward answers from where the client sent to, not from where that went.
func TestUDPForward(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		dns := netip.MustParseAddrPort("192.0.2.53:53")
		if id.Client.Addr().Is6() {
			dns = netip.MustParseAddrPort("[2001:db8::53]:53")
		}
		r := newUDPRig(t, id, Options{Forward: map[netip.AddrPort]netip.AddrPort{dns: {}}})
		go r.peer.echo()
		asked := r.id
		asked.Destination = dns
		if !r.send(asked, "query") {
			t.Fatal("nobody is there")
		}
		if got := await(t, "the answer", r.w.got); got.from != dns || string(got.payload) != "query" {
			t.Errorf("answered %q from %v", got.payload, got.from)
		}
	})
}

// TestUDPRefused tells the client that nobody is there, each time, and keeps the
// session for the server that comes up.
func TestUDPRefused(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		r := newUDPRig(t, id, Options{})
		from := r.exchange(r.id, "while it was up")
		_ = r.peer.Close()
		for range 3 {
			r.send(r.id, "lost")
			if got := await(t, "the rejection", r.w.got); !got.rejected || got.id != r.id {
				t.Errorf("got %+v, want a rejection", got)
			}
		}
		r.peer = newPeer(t, r.peer.at)
		if again := r.exchange(r.id, "up again"); again != from {
			t.Errorf("the flow came from %v, then from %v", from, again)
		}
	})
}

// TestUDPErrors: what ICMP says of one datagram ends no session.
func TestUDPErrors(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		0: false, unix.EAGAIN: false, unix.EBADF: false, unix.ECONNABORTED: false, unix.ENOMEM: false,
		unix.ECONNREFUSED: true, unix.EMSGSIZE: true, unix.EHOSTUNREACH: true, unix.ENETUNREACH: true, unix.ENOPROTOOPT: true, unix.EACCES: true,
	} {
		if got := ofEarlier(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}

// TestUDPDropped counts what the socket does not take.
func TestUDPDropped(t *testing.T) {
	r := newUDPRig(t, flows(flow.UDP)["ipv4"], Options{})
	if !r.d.HandleDatagram(r.w, r.id, make([]byte, 65508)) { // one more than IPv4 holds
		t.Error("an oversize datagram is called unserved")
	}
	if s := r.d.Stats(); s.UDPDropped != 1 || s.UDP.BytesUp != 0 {
		t.Errorf("counted %+v", s)
	}
	r.exchange(r.id, "fits")
}

// TestUDPDenied refuses by policy, our own sockets' datagrams, and without files.
func TestUDPDenied(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		r := newUDPRig(t, id, Options{})
		denied := func(id flow.ID, want error) {
			t.Helper()
			before := r.d.Stats().UDP.Dials[DialDenied]
			if r.send(id, "x") {
				t.Errorf("%v was served", id)
			}
			if rec := await(t, "the record", r.records); rec.Result != DialDenied || !errors.Is(rec.Err, want) || rec.ID != id {
				t.Errorf("recorded %+v, want %v", rec, want)
			}
			if n := r.d.Stats().UDP.Dials[DialDenied] - before; n != 1 {
				t.Errorf("%d denials counted", n)
			}
		}
		for _, to := range []string{"169.254.169.254:80", "224.0.0.251:5353", "[fe80::1]:5353", "[ff02::fb]:5353", "[64:ff9b::7f00:1]:53"} {
			other := r.id
			other.Destination = netip.MustParseAddrPort(to)
			denied(other, errDenied)
		}
		// Sent by the gateway itself and routed back into the device: each
		// round would make another session, for ever.
		looped := r.flow(7)
		looped.Client = r.exchange(r.flow(7), "out")
		denied(looped, errLoop)
		r.stop()
		if n := len(r.d.udp.own.m); n != 0 {
			t.Errorf("%d addresses are still called our own", n)
		}
	})
}

// TestUDPIdle ends sessions by the timeout of their port, and no sooner.
func TestUDPIdle(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		dns := netip.AddrPortFrom(id.Client.Addr(), 53)
		for name, tc := range map[string]struct {
			udp         UDPOptions
			first, last uint16 // the ports of the clients whose sessions end first and last
			at, later   time.Duration
		}{
			"defaults":   {UDPOptions{}, 2, 1, 10 * time.Second, time.Minute},
			"DNS longer": {UDPOptions{IdleTimeout: time.Second, DNSTimeout: time.Hour}, 1, 2, time.Second, time.Hour},
		} {
			t.Run(name, func(t *testing.T) {
				r := newUDPRig(t, id, Options{UDP: tc.udp, Forward: map[netip.AddrPort]netip.AddrPort{dns: {}}})
				before := time.Now()
				r.exchange(r.flow(1), "long")
				query := r.flow(2)
				query.Destination = dns
				from := r.exchange(query, "query")
				used := time.Now()
				reap := func(at time.Time, want ...uint16) {
					t.Helper()
					r.d.udp.reap(at)
					r.wantOpen(want...)
				}
				reap(before.Add(tc.at-time.Nanosecond), 1, 2)
				reap(used.Add(tc.at), tc.last)
				r.wantEnd(tc.first, flow.ReasonIdle)
				reap(before.Add(tc.later-time.Nanosecond), tc.last)
				reap(used.Add(tc.later))
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
	r := newUDPRig(t, flows(flow.UDP)["ipv4"], Options{})
	r.exchange(r.flow(1), "a")
	from := r.exchange(r.flow(2), "b")
	r.exchange(r.flow(3), "c")
	r.wantOpen(1, 2, 3)
	r.exchange(r.flow(1), "up")
	r.wantOpen(2, 3, 1)
	if _, err := r.peer.WriteToUDPAddrPort([]byte("down"), from); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer counts as use", func() bool { return fmt.Sprint(r.open()) == "[3 1 2]" })
}

// TestUDPLimit makes room by ending what was idle longest.
func TestUDPLimit(t *testing.T) {
	forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) {
		r := newUDPRig(t, id, Options{UDP: UDPOptions{MaxSessions: 3}})
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

// TestUDPConcurrent lets many readers use the same few flows while sessions are
// evicted, reaped and at last shut down, and wants the books to balance.
func TestUDPConcurrent(t *testing.T) {
	before := descriptors()
	r := newUDPRig(t, flows(flow.UDP)["ipv4"], Options{UDP: UDPOptions{MaxSessions: 8}})
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
					r.d.udp.reap(time.Now().Add(time.Duration(rng.IntN(2)) * time.Hour))
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
