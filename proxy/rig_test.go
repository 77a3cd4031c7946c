package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/loop"
)

// forFamilies runs a test over IPv4 and IPv6.
func forFamilies(t *testing.T, proto flow.Protocol, test func(t *testing.T, id flow.ID)) {
	t.Helper()
	for family, id := range flows(proto) {
		t.Run(family, func(t *testing.T) { test(t, id) })
	}
}

// engine is how connections are relayed.
type engine string

const (
	simple engine = "simple"
	onLoop engine = "loop"
)

var engines = []engine{simple, onLoop}

// forRelays runs a test with one relayed connection, over IPv4 and IPv6, relayed
// by goroutines and by the loop.
func forRelays(t *testing.T, o Options, test func(t *testing.T, j *joined)) {
	t.Helper()
	forRigs(t, o, func(t *testing.T, r *rig) { test(t, r.join()) })
}

// forEngines runs a test with both relays, over IPv4 and IPv6.
func forEngines(t *testing.T, test func(t *testing.T, on engine, id flow.ID)) {
	t.Helper()
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) { test(t, e, id) })
		})
	}
}

func forRigs(t *testing.T, o Options, test func(t *testing.T, r *rig)) {
	t.Helper()
	forEngines(t, func(t *testing.T, on engine, id flow.ID) { test(t, newRig(t, on, id, o)) })
}

// rig is a handler that runs, in front of a listener on loopback.
type rig struct {
	t       *testing.T
	h       Handler
	d       *direct
	re      *reactor // nil for engine simple
	ln      *net.TCPListener
	id      flow.ID // to ln
	chaos   *rand.Rand
	records chan Record
	ctx     context.Context // of the stack
}

// newRig listens on id's destination address and hands the flows of id to a
// handler with o, to which loopback is open.
func newRig(t *testing.T, e engine, id flow.ID, o Options) *rig {
	t.Helper()
	r := &rig{t: t, id: id, records: make(chan Record, 1000), ctx: context.Background()}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(id.Destination))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	r.ln = ln
	r.id = r.to(ln.Addr().(*net.TCPAddr).AddrPort())
	o.Allow = append(o.Allow, ClassLoopback)
	r.start(e, o)
	return r
}

// start makes the handler and runs it until the test ends.
func (r *rig) start(e engine, o Options) {
	r.t.Helper()
	trace := func(rec Record) { r.records <- rec }
	var err error
	if e == onLoop {
		l := startLoop(r.t)
		r.h, err = NewOnLoop(o, l, trace)
		r.re, _ = r.h.(*reactor)
		r.d = r.re.direct
	} else {
		r.h, err = New(o, trace)
		r.d, _ = r.h.(*direct)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	wait.Background(r.t, r.h.Run)
}

// startLoop runs a loop until the test ends.
func startLoop(t testing.TB) *loop.Loop {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	wait.Background(t, l.Run)
	return l
}

// canceled is a context that is done.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// request is a flow.Request over one end of a pipe.
type request struct {
	t        testing.TB
	id       flow.ID
	conn     flow.Conn
	err      error       // of Accept
	answered chan string // "accept", "refuse" or "drop"
}

func newRequest(t testing.TB, id flow.ID, c flow.Conn) *request {
	return &request{t: t, id: id, conn: c, answered: make(chan string, 1)}
}

func (r *request) ID() flow.ID { return r.id }
func (r *request) Refuse()     { r.answer("refuse") }
func (r *request) Drop()       { r.answer("drop") }

func (r *request) Accept() (flow.Conn, error) {
	r.answer("accept")
	return r.conn, r.err
}

func (r *request) answer(a string) {
	select {
	case r.answered <- a:
	default:
		r.t.Errorf("a request was answered again: %s", a)
	}
}

// joined is one connection that the handler relays.
type joined struct {
	*rig
	end    *memConn      // the client's end, for what NetConn has no method for
	client *flow.NetConn // over end
	up     *net.TCPConn  // the upstream's end
	served chan struct{} // closed when HandleTCP has returned
	record *Record       // nil until the relay's end was seen
}

// join opens one connection through the handler.
func (r *rig) join() *joined {
	r.t.Helper()
	clientEnd, served := pipe(r.t, r.id, r.chaos)
	j := &joined{rig: r, end: clientEnd, client: flow.NewNetConn(clientEnd)}
	req := newRequest(r.t, r.id, served)
	j.served = r.handle(req)
	if a := await(r.t, "an answer to the SYN", req.answered); a != "accept" {
		r.t.Fatalf("answer %s: %v", a, (<-r.records).Err)
	}
	up, err := r.ln.AcceptTCP()
	if err != nil {
		r.t.Fatal(err)
	}
	j.up = up
	r.t.Cleanup(j.cut)
	return j
}

// handle lets the handler serve a request; the channel is closed when it returns.
func (r *rig) handle(req flow.Request) chan struct{} {
	served := make(chan struct{})
	go func() {
		defer close(served)
		r.h.HandleTCP(r.ctx, req)
	}()
	return served
}

// cut ends what is left, so that a failed test leaks nothing.
func (j *joined) cut() {
	j.client.Abort()
	_ = j.up.Close()
	j.wait()
}

// wait waits for the relay's end.
func (j *joined) wait() *Record {
	j.t.Helper()
	if j.record == nil {
		rec := await(j.t, "the relay's end", j.records)
		await(j.t, "the handler's end", j.served)
		j.record = &rec
	}
	return j.record
}

// ended waits for the relay's end and checks its reason and that both sides were
// closed.
func (j *joined) ended(want flow.CloseReason) *Record {
	j.t.Helper()
	rec := j.wait()
	if rec.Reason != want {
		j.t.Errorf("ended by %v, want %v", rec.Reason, want)
	}
	if !j.end.peer.isClosed() {
		j.t.Error("the client's connection was left open")
	}
	if s := j.h.Stats().TCP; s.Open != 0 || s.Closed[want] == 0 {
		j.t.Errorf("%d connections are counted open, %d ended by %v", s.Open, s.Closed[want], want)
	}
	return rec
}

// bytesOf is seeded data: the same seed gives the same bytes.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = src.Read(b)
	return b
}

// halfCloser is either side of a relay.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// send writes b and then FIN.
func send(t *testing.T, to halfCloser, b []byte) {
	t.Helper()
	if n, err := to.Write(b); n != len(b) || err != nil {
		t.Errorf("wrote %d of %d bytes: %v", n, len(b), err)
		return
	}
	if err := to.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
}

// receive reads to the FIN and compares.
func receive(t *testing.T, who string, from io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(from)
	if err != nil {
		t.Errorf("%s: %v after %d of %d bytes", who, err, len(got), len(want))
		return
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s got %d bytes, %d were sent, and they differ from byte %d on", who, len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// exchange moves up and down at the same time, each ended by FIN.
func exchange(t *testing.T, client, server halfCloser, up, down []byte) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { send(t, client, up) })
	wg.Go(func() { send(t, server, down) })
	wg.Go(func() { receive(t, "upstream", server, up) })
	wg.Go(func() { receive(t, "client", client, down) })
	wg.Wait()
}

// wantReset reads until the error, which must be a reset.
func wantReset(t *testing.T, who string, from io.Reader) {
	t.Helper()
	if _, err := io.Copy(io.Discard, from); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%s: %v, want ECONNRESET", who, err)
	}
}

// reset makes Close of a kernel connection send RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
