package netstack_test

import (
	"context"
	"testing"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

// TestCloseBeforeAccept: a handler that accepts when Close has begun, since its
// dial succeeded just then, does not hold Close up for the 127 s of a handshake.
func TestCloseBeforeAccept(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		in, errs := make(chan struct{}), make(chan error, 1)
		r := newRig(t, handler{tcp: func(ctx context.Context, req flow.Request) {
			close(in)
			<-ctx.Done()
			_, err := req.Accept()
			errs <- err
		}}, netstack.Options{})
		r.send(segment{tuple: tu, flags: syn}.frame())
		<-in
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; err == nil {
			t.Error("a connection was accepted after the end")
		}
	})
}
