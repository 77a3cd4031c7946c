package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
)

// echoed is one connection that the echo handler serves.
type echoed struct {
	t       *testing.T
	h       Handler
	end     *memConn
	client  *flow.NetConn
	records chan Record
	cancel  func() // ends the stack's context
}

func echoOn(t *testing.T, e engine, o Options, trace func(Record)) Handler {
	t.Helper()
	o.Handler = "echo"
	var h Handler
	var err error
	if e == onLoop {
		h, err = NewOnLoop(o, startLoop(t), trace)
	} else {
		h, err = New(o, trace)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newEchoed(t *testing.T, on engine, id flow.ID, o Options) *echoed {
	t.Helper()
	e := &echoed{t: t, records: make(chan Record, 1)}
	h := echoOn(t, on, o, func(r Record) { e.records <- r })
	e.h = h
	wait.Background(t, h.Run)
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	end, served := pipe(t, id, nil)
	e.end, e.client = end, flow.NewNetConn(end)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.HandleTCP(ctx, newRequest(t, id, served))
	}()
	t.Cleanup(func() {
		cancel()
		e.client.Abort()
		await(t, "the handler's end", done)
	})
	return e
}

func forEchoes(t *testing.T, o Options, test func(t *testing.T, e *echoed)) {
	t.Helper()
	forEngines(t, func(t *testing.T, on engine, id flow.ID) { test(t, newEchoed(t, on, id, o)) })
}

func (e *echoed) ended(want flow.CloseReason) Record {
	e.t.Helper()
	rec := await(e.t, "the connection's end", e.records)
	if rec.Reason != want {
		e.t.Errorf("ended by %v, want %v", rec.Reason, want)
	}
	if s := e.h.Stats().TCP; s.Open != 0 || s.Opened != 1 || s.Closed[want] != 1 || s.BytesUp != rec.Up || s.BytesDown != rec.Down {
		e.t.Errorf("counted %+v for %+v", s, rec)
	}
	if !e.end.peer.isClosed() {
		e.t.Error("the connection was left open")
	}
	return rec
}

// TestEcho gives every byte back, through windows of all sizes.
func TestEcho(t *testing.T) {
	for name, window := range map[string]int{"one byte": 1, "small": 1000, "usual": defaultWindow} {
		t.Run(name, func(t *testing.T) {
			forEchoes(t, Options{}, func(t *testing.T, e *echoed) {
				e.end.setWindow(window)
				e.end.peer.setWindow(window)
				want := bytesOf(1, min(3<<20, window*20_000))
				var wg sync.WaitGroup
				wg.Go(func() { send(t, e.client, want) })
				receive(t, "client", e.client, want)
				wg.Wait()
				if rec := e.ended(flow.ReasonDone); rec.Up != uint64(len(want)) || rec.Down != rec.Up {
					t.Errorf("recorded %d up, %d down; want %d", rec.Up, rec.Down, len(want))
				}
			})
		})
	}
}

func TestEchoReset(t *testing.T) {
	forEchoes(t, Options{}, func(t *testing.T, e *echoed) {
		if _, err := e.client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(e.client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		e.client.Abort()
		e.ended(flow.ReasonClientReset)
	})
}

// TestEchoIdle keeps the timeout to the letter; every byte begins it anew.
func TestEchoIdle(t *testing.T) {
	for family, id := range flows(flow.TCP) {
		t.Run(family, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEchoed(t, simple, id, Options{IdleTimeout: time.Hour})
				start := time.Now()
				for range 3 {
					<-time.After(59 * time.Minute)
					pass(t, e.client, e.client)
				}
				rec := <-e.records
				if d := time.Since(start); d != 3*59*time.Minute+time.Hour || rec.Reason != flow.ReasonIdle || rec.Up != 3 {
					t.Errorf("ended after %v by %v, %d bytes", d, rec.Reason, rec.Up)
				}
				wantReset(t, "client", e.client)
			})
		})
	}
}

func TestEchoShutdown(t *testing.T) {
	forEngines(t, func(t *testing.T, on engine, id flow.ID) {
		e := newEchoed(t, on, id, Options{IdleTimeout: -1})
		e.cancel()
		e.client.Abort() // which is what a stack that closes looks like
		e.ended(flow.ReasonShutdown)
	})
}

func TestEchoFailedHandshake(t *testing.T) {
	forEngines(t, func(t *testing.T, on engine, id flow.ID) {
		h := echoOn(t, on, Options{}, func(r Record) { t.Errorf("recorded %+v", r) })
		req := newRequest(t, id, nil)
		req.err = unix.ETIMEDOUT
		h.HandleTCP(t.Context(), req)
		if s := h.Stats().TCP; s.Opened != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestEchoDatagrams answers each, from where it was sent to.
func TestEchoDatagrams(t *testing.T) {
	forUDP(t, func(t *testing.T, on engine, id flow.ID) {
		h := echoOn(t, on, Options{}, nil)
		w := newClients()
		total := 0
		for _, n := range []int{0, 1, 1472, 65507} {
			want := bytesOf(1, n)
			if !h.HandleDatagram(w, id, want) {
				t.Error("nobody is there")
			}
			got := <-w.got
			if got.id != id || got.from != id.Destination || !bytes.Equal(got.payload, want) {
				t.Errorf("%d bytes came back as %d from %v", n, len(got.payload), got.from)
			}
			total += n
		}
		if s := h.Stats().UDP; s.BytesUp != uint64(total) || s.BytesDown != uint64(total) {
			t.Errorf("counted %+v, want %d bytes each way", s, total)
		}
		if !h.HandleDatagram(brokenWriter{}, id, []byte("x")) {
			t.Error("a datagram whose answer is lost is called unserved")
		}
		if s := h.Stats().UDP; s.BytesUp != uint64(total)+1 || s.BytesDown != uint64(total) {
			t.Errorf("counted %+v after a lost answer", s)
		}
	})
}

// brokenWriter is a stack that sends nothing.
type brokenWriter struct{ flow.DatagramWriter }

func (brokenWriter) WriteDatagram(flow.ID, netip.AddrPort, []byte) error { return errLost }

var errLost = errors.New("lost")
