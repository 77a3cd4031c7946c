package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/gateway"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/tundev/tuntest"
)

// device is a tuntest.Device as a gateway wants one.
type device struct {
	*tuntest.Device
	closed atomic.Int32
}

func (d *device) Name() string    { return "mem0" }
func (d *device) Notes() []string { return []string{"a device in memory"} }

func (d *device) Close() error {
	d.closed.Add(1)
	return d.Device.Close()
}

// family is one IP version: where a client sends to, and where that is served.
type family struct {
	name     string
	service  netip.Addr // as the client knows it
	loopback netip.Addr
}

var families = []family{
	{"ipv4", netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("127.0.0.1")},
	{"ipv6", netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("::1")},
}

// forFamilies runs a test over both IP versions, and with both relays.
func forFamilies(t *testing.T, test func(t *testing.T, f family, relay string)) {
	t.Helper()
	for _, relay := range []string{"reactor", "simple"} {
		for _, f := range families {
			t.Run(relay+"/"+f.name, func(t *testing.T) { test(t, f, relay) })
		}
	}
}

// rig is a running gateway with a client on its device.
type rig struct {
	t      *testing.T
	f      family
	g      *gateway.Gateway
	dev    *device
	client *client
	cancel func()        // ends the gateway's context
	cut    chan struct{} // ends its drain when closed
	done   chan error    // what Run returned
}

// options shape a rig; the zero value is a gateway as it comes, but without its
// admin server.
type options struct {
	relay   string
	device  tuntest.Options
	config  func(*config.Config)
	forward map[netip.AddrPort]netip.AddrPort
	log     *zap.Logger // nil: nobody reads it
}

// newRig runs a gateway until the test ends.
func newRig(t *testing.T, f family, o options) *rig {
	t.Helper()
	if o.device.Depth == 0 {
		o.device.Depth = 4096 // frames; TCP would have to repair more often with fewer
	}
	ours, theirs := tuntest.Pair(o.device)
	r := &rig{t: t, f: f, dev: &device{Device: ours}, cut: make(chan struct{}), done: make(chan error, 1)}
	cfg := config.Default()
	cfg.Admin.Listen = "off"
	cfg.Proxy.Relay = o.relay
	cfg.Proxy.Forward = o.forward
	if o.config != nil {
		o.config(cfg)
	}
	if o.log == nil {
		o.log = zap.NewNop()
	}
	g, err := gateway.New(t.Context(), cfg, gateway.Deps{Log: o.log, Device: r.dev})
	if err != nil {
		t.Fatal(err)
	}
	r.g = g
	r.client = newClient(t, theirs)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- g.Run(ctx, r.cut) }()
	t.Cleanup(r.stop)
	wait.Until(t, "the gateway to serve", func() bool { return g.Ready() == nil })
	return r
}

// stop ends the gateway at once, unless the test did.
func (r *rig) stop() {
	r.cancel()
	select {
	case <-r.cut:
	default:
		close(r.cut)
	}
	if err, ok := <-r.done; ok && err != nil {
		r.t.Errorf("Run returned %v", err)
	}
}

// ended waits for Run and returns its error; the rig needs no stop then.
func (r *rig) ended() error {
	r.t.Helper()
	err := wait.For(r.t, "the gateway's end", r.done)
	close(r.done)
	return err
}

// server is a kernel listener on loopback and the address it has for clients.
type server struct {
	*net.TCPListener
	t    *testing.T
	at   netip.AddrPort
	addr netip.AddrPort // for clients
}

// listen serves f on loopback until the test ends.
func listen(t *testing.T, f family) *server {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return &server{TCPListener: ln, t: t, at: ln.Addr().(*net.TCPAddr).AddrPort(), addr: netip.AddrPortFrom(f.service, 80)}
}

// forwardTo makes a rig whose clients reach s.
func (s *server) forwardTo() map[netip.AddrPort]netip.AddrPort {
	return map[netip.AddrPort]netip.AddrPort{s.addr: s.at}
}

// accept returns the next connection.
func (s *server) accept() *net.TCPConn {
	s.t.Helper()
	c, err := s.AcceptTCP()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// joined is a connection through a gateway, both ends.
type joined struct {
	*rig
	server *server
	down   *conn        // the client's end
	up     *net.TCPConn // the upstream's end
}

// join makes a rig with one connection through it, which is open at both ends and
// in between.
func join(t *testing.T, f family, o options) *joined {
	t.Helper()
	j := dialled(t, f, o)
	wait.Until(t, "the connection", func() bool { s, p := j.g.Stats(); return s.Established == 1 && p.TCP.Open == 1 })
	return j
}

// dialled is join that looks at the client alone, which knows first.
func dialled(t *testing.T, f family, o options) *joined {
	t.Helper()
	s := listen(t, f)
	o.forward = s.forwardTo()
	j := &joined{rig: newRig(t, f, o), server: s}
	j.down = j.client.mustDial(s.addr)
	j.up = s.accept()
	return j
}

// halfCloser is either end of a connection.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// bytesOf is seeded data.
func bytesOf(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
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
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s got %d bytes (equal: %v), %v; %d were sent", who, len(got), bytes.Equal(got, want), err, len(want))
	}
}

// exchange moves bytes both ways at once, each ended by FIN.
func exchange(t *testing.T, down, up halfCloser, toUp, toDown []byte) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { send(t, down, toUp) })
	wg.Go(func() { send(t, up, toDown) })
	wg.Go(func() { receive(t, "the upstream", up, toUp) })
	wg.Go(func() { receive(t, "the client", down, toDown) })
	wg.Wait()
}

// wantReset reads until the error, which must say that the other side reset.
func wantReset(t *testing.T, who string, from io.Reader) {
	t.Helper()
	_, err := io.Copy(io.Discard, from)
	// gonet knows errors as text alone.
	if opErr, ok := errors.AsType[*net.OpError](err); !ok || !bytes.Contains([]byte(opErr.Err.Error()), []byte("reset by peer")) {
		t.Errorf("%s: %v, want a reset", who, err)
	}
}
