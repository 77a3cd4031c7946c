package proxy

import (
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
)

// TestEchoTimeouts ends connections that are silent, and those whose client sends
// and takes nothing back.
func TestEchoTimeouts(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		forEchoes(t, Options{IdleTimeout: 150 * time.Millisecond}, func(t *testing.T, e *echoed) {
			for range 10 {
				pause(20 * time.Millisecond)
				pass(t, e.client, e.client)
			}
			e.ended(flow.ReasonIdle)
			wantReset(t, "client", e.client)
		})
	})
	t.Run("stalled", func(t *testing.T) {
		forEchoes(t, Options{StallTimeout: 150 * time.Millisecond}, func(t *testing.T, e *echoed) {
			go func() { _, _ = e.client.Write(make([]byte, 20<<20)) }()
			e.ended(flow.ReasonClientStalled)
		})
	})
	t.Run("slow", func(t *testing.T) {
		forEchoes(t, Options{StallTimeout: time.Second}, func(t *testing.T, e *echoed) {
			e.end.setReticent()
			go func() { _, _ = e.client.Write(make([]byte, 20<<20)) }()
			eventually(t, "the client's window is full", func() bool { return e.end.unread() == defaultWindow })
			sip(t, e.client, 75, 20*time.Millisecond, 1)
			if len(e.records) > 0 {
				t.Errorf("ended by %v", (<-e.records).Reason)
			}
		})
	})
}

// TestEchoHalfClose: what was sent before the FIN comes back before the answer's
// FIN, also to a client that reads only then.
func TestEchoHalfClose(t *testing.T) {
	forEchoes(t, Options{}, func(t *testing.T, e *echoed) {
		want := bytesOf(9, 100_000)
		e.end.setWindow(1000)
		send(t, e.client, want)
		receive(t, "client", e.client, want)
		e.ended(flow.ReasonDone)
	})
}

// TestEchoBackpressure holds little for a client that takes nothing back.
func TestEchoBackpressure(t *testing.T) {
	forEchoes(t, Options{}, func(t *testing.T, e *echoed) {
		stuff(t, e.client)
		sent := e.end.unread() + e.end.peer.unread()
		if sent != 2*defaultWindow {
			t.Errorf("%d bytes wait in the windows, want %d", sent, 2*defaultWindow)
		}
	})
}

// TestEchoIdleCost: with the loop an open connection has no goroutine.
func TestEchoIdleCost(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		h := echoOn(t, onLoop, Options{}, nil)
		wait.Background(t, h.Run)
		open := func() {
			end, served := pipe(t, id, nil)
			h.HandleTCP(t.Context(), newRequest(t, id, served))
			c := flow.NewNetConn(end)
			pass(t, c, c)
		}
		open()
		before := runtime.NumGoroutine()
		for range 100 {
			open()
		}
		// Those of the requests, which wait to be accepted, end by themselves.
		eventually(t, "no goroutine for a connection", func() bool { return runtime.NumGoroutine() <= before })
		if n := h.Stats().TCP.Open; n != 101 {
			t.Errorf("%d are open", n)
		}
	})
}

// TestEchoEnds: with the loop, connections that are open when the handler stops are
// reset, and so is one that comes after.
func TestEchoEnds(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		e := newEchoed(t, onLoop, id, Options{})
		pass(t, e.client, e.client)
		if err := e.h.Run(canceled()); err != nil {
			t.Error(err)
		}
		e.ended(flow.ReasonShutdown)
		wantReset(t, "client", e.client)
		end, served := pipe(t, id, nil)
		e.h.HandleTCP(t.Context(), newRequest(t, id, served))
		wantReset(t, "late client", flow.NewNetConn(end))
	})
}

// BenchmarkEcho is bulk through a connection in memory.
func BenchmarkEcho(b *testing.B) {
	id := flows(flow.TCP)["ipv4"]
	h, err := NewOnLoop(Options{Handler: "echo"}, startLoop(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	wait.Background(b, h.Run)
	end, served := pipe(b, id, nil)
	h.HandleTCP(b.Context(), newRequest(b, id, served))
	c := flow.NewNetConn(end)
	defer c.Abort()
	block := make([]byte, 256<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = c.Write(block) })
		if _, err := io.ReadFull(c, make([]byte, len(block))); err != nil {
			b.Fatal(err)
		}
		wg.Wait()
	}
}
