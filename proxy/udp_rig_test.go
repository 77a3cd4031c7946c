package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
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

func newPeer(t testing.TB, at netip.AddrPort) *peer {
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

// forUDP runs a test over IPv4 and IPv6, with a loop of its own and with a shared
// one.
func forUDP(t *testing.T, test func(t *testing.T, e engine, id flow.ID)) {
	t.Helper()
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			forFamilies(t, flow.UDP, func(t *testing.T, id flow.ID) { test(t, e, id) })
		})
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

func newUDPRig(t *testing.T, e engine, id flow.ID, o Options) *udpRig {
	t.Helper()
	r := &udpRig{t: t, w: newClients(), peer: newPeer(t, id.Destination), id: id, records: make(chan Record, 10_000)}
	r.id.Destination = r.peer.at
	o.Allow = []Class{ClassLoopback}
	for from := range o.Forward {
		o.Forward[from] = r.peer.at
	}
	h := r.handler(e, o)
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

// handler makes the rig's handler and the loop it needs.
func (r *udpRig) handler(e engine, o Options) Handler {
	r.t.Helper()
	trace := func(rec Record) { r.records <- rec }
	if e == simple {
		h, err := New(o, trace)
		if err != nil {
			r.t.Fatal(err)
		}
		r.d = h.(*direct)
		return h
	}
	h, err := NewOnLoop(o, startLoop(r.t), trace)
	if err != nil {
		r.t.Fatal(err)
	}
	r.d = h.(*reactor).direct
	return h
}

// onLoop runs f on the goroutine that serves the sessions.
func (r *udpRig) onLoop(f func()) {
	r.t.Helper()
	u := r.d.udp
	u.mu.Lock()
	err := u.useLoopLocked()
	u.mu.Unlock()
	if err != nil {
		return
	}
	done := make(chan struct{})
	var task loop.Task
	task.Init(loop.RunnerFunc(func() { defer close(done); f() }))
	if u.loop.Post(&task) {
		await(r.t, "the loop", done)
	}
}

// hold keeps the loop busy until release is called.
func (r *udpRig) hold() (release func()) {
	r.t.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(free) })
	r.t.Cleanup(release)
	go r.onLoop(func() { close(held); <-free })
	await(r.t, "the loop", held)
	return release
}

// age makes every session's past so much longer and lets their timers fire.
func (r *udpRig) age(by time.Duration) {
	r.t.Helper()
	r.onLoop(func() {
		u := r.d.udp
		var all []*session
		u.mu.Lock()
		for s := u.used.next; s != &u.used; s = s.next {
			s.last -= by
			all = append(all, s)
		}
		u.mu.Unlock()
		for _, s := range all {
			s.Expire()
		}
	})
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
	for s := u.used.next; s != &u.used; s = s.next {
		ports = append(ports, s.id.Client.Port())
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
