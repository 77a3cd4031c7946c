package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/tundev/tuntest"
)

// accepter is a flow.Handler for ordinary Go code: it passes connections on as
// net.Conn.
type accepter struct{ conns chan *flow.NetConn }

func (a accepter) HandleTCP(_ context.Context, req flow.Request) {
	if c, err := req.Accept(); err == nil {
		a.conns <- flow.NewNetConn(c)
	}
}

func (accepter) HandleDatagram(flow.DatagramWriter, flow.ID, []byte) bool { return false }

// stackRig is a stack that hands its connections to the test.
type stackRig struct {
	t      *testing.T
	client *client
	conns  chan *flow.NetConn
}

func newStackRig(t *testing.T) *stackRig {
	t.Helper()
	ours, theirs := tuntest.Pair(tuntest.Options{Depth: 4096})
	a := accepter{make(chan *flow.NetConn, 1)}
	s, err := netstack.New(ours, a, netstack.Options{}, netstack.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	t.Cleanup(func() {
		_ = s.Close()
		_ = ours.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &stackRig{t, newClient(t, theirs), a.conns}
}

// dial returns both ends of a new connection.
func (r *stackRig) dial(f family, port uint16) (*conn, *flow.NetConn) {
	r.t.Helper()
	down := r.client.mustDial(netip.AddrPortFrom(f.service, port))
	up := wait.For(r.t, "the connection", r.conns)
	r.t.Cleanup(func() { _ = up.Close() })
	return down, up
}

// TestNetConn holds NetConn over the real stack to what every net.Conn promises.
func TestNetConn(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newStackRig(t)
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				down, up := r.dial(f, 80)
				return up, down, func() { up.Abort(); down.reset() }, nil
			})
		})
	}
}

// TestNetConnEnds: half-close, reset and addresses over the real stack.
func TestNetConnEnds(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r := newStackRig(t)
			down, up := r.dial(f, 80)
			if got, want := up.LocalAddr().String(), down.RemoteAddr().String(); got != want {
				t.Errorf("LocalAddr %s, want %s", got, want)
			}
			if got, want := up.RemoteAddr().String(), down.LocalAddr().String(); got != want {
				t.Errorf("RemoteAddr %s, want %s", got, want)
			}
			if got, want := up.ID().String(), fmt.Sprintf("tcp %s > %s", up.RemoteAddr(), up.LocalAddr()); got != want {
				t.Errorf("ID %s, want %s", got, want)
			}
			exchange(t, down, up, bytesOf(1, 2<<20), bytesOf(2, 2<<20))

			down, up = r.dial(f, 81)
			down.reset()
			if _, err := io.Copy(io.Discard, up); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("after the client's reset: %v, want ECONNRESET", err)
			}
			down, up = r.dial(f, 82)
			up.Abort()
			wantReset(t, "the client", down)
			if _, err := up.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Abort: %v, want net.ErrClosed", err)
			}
		})
	}
}
