package netstack_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

// TestCloseBeforeAccept: a handler that accepts when Close has already reset the
// connections, since its dial succeeded just then, does not hold Close up for the
// 127 s of a handshake.
func TestCloseBeforeAccept(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		conns, errs := make(chan flow.Conn, 1), make(chan error, 1)
		asked := make(chan struct{})
		reset := newBell()
		r := newRig(t, handler{tcp: func(_ context.Context, req flow.Request) {
			if req.ID().Client.Port() == tu.src.Port() {
				c, err := req.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				c.SetNotifier(reset)
				conns <- c
				return
			}
			first := <-conns
			close(asked)
			for !first.Broken() {
				<-reset.c
			}
			_, err := req.Accept()
			errs <- err
			first.Abort()
		}}, netstack.Options{})
		r.connect(tu)
		second := tu
		second.src = netip.AddrPortFrom(tu.src.Addr(), tu.src.Port()+1)
		r.send(segment{tuple: second, flags: syn}.frame())
		<-asked
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; err == nil {
			t.Error("a connection was accepted after the end")
		}
	})
}
