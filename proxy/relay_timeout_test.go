package proxy

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// TestRelayIdle resets both sides of a connection that moves nothing.
func TestRelayIdle(t *testing.T) {
	forRelays(t, Options{IdleTimeout: 20 * time.Millisecond}, func(t *testing.T, j *joined) {
		wantReset(t, "client", j.client)
		wantReset(t, "upstream", j.up)
		j.ended(flow.ReasonIdle)
	})
}

// TestRelayIdleFull: a client that stopped reading is idle, too.
func TestRelayIdleFull(t *testing.T) {
	forRelays(t, Options{IdleTimeout: 150 * time.Millisecond}, func(t *testing.T, j *joined) {
		j.fillClient()
		j.ended(flow.ReasonIdle)
		wantReset(t, "client", j.client)
	})
}

// TestRelayDrain gives a half-closed connection its own time, even where idle
// connections live for ever.
func TestRelayDrain(t *testing.T) {
	for name, o := range map[string]Options{
		"idle timeout longer": {DrainTimeout: 20 * time.Millisecond},
		"no idle timeout":     {DrainTimeout: 20 * time.Millisecond, IdleTimeout: -1},
	} {
		t.Run(name+", client closed", func(t *testing.T) {
			forRelays(t, o, func(t *testing.T, j *joined) {
				_ = j.client.CloseWrite()
				receive(t, "upstream", j.up, nil)
				wantReset(t, "client", j.client)
				j.ended(flow.ReasonDrain)
			})
		})
		t.Run(name+", upstream closed", func(t *testing.T) {
			forRelays(t, o, func(t *testing.T, j *joined) {
				_ = j.up.CloseWrite()
				receive(t, "client", j.client, nil)
				wantReset(t, "upstream", j.up)
				j.ended(flow.ReasonDrain)
			})
		})
	}
}

// TestRelayTimer looks at the timer's decision without waiting for it: the
// relay's clock began long ago.
func TestRelayTimer(t *testing.T) {
	const idle, drain = time.Hour, time.Minute
	for _, tc := range []struct {
		name   string
		age    time.Duration // of the relay; nothing moved in the first moment of it
		halves int32
		moves  bool // a byte moved just now
		want   flow.CloseReason
		over   bool
	}{
		{name: "young", age: time.Minute, want: flow.ReasonIdle},
		{name: "idle", age: 2 * time.Hour, want: flow.ReasonIdle, over: true},
		{name: "active", age: 2 * time.Hour, moves: true, want: flow.ReasonIdle},
		{name: "half-closed", age: time.Minute / 2, halves: 1, want: flow.ReasonDrain},
		{name: "half-closed and silent", age: 2 * time.Minute, halves: 1, want: flow.ReasonDrain, over: true},
		{name: "half-closed and active", age: 2 * time.Minute, halves: 1, moves: true, want: flow.ReasonDrain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &relay{drop: idle, wait: drain, hold: -1, start: time.Now().Add(-tc.age), over: true} // sets no timer
			r.halves.Store(tc.halves)
			if tc.moves {
				r.touch()
			}
			if reason, over := r.silent(); reason != tc.want || over != tc.over {
				t.Errorf("%v, %v; want %v, %v", reason, over, tc.want, tc.over)
			}
		})
	}
}

// TestRelayTimerStays off once the relay has finished.
func TestRelayTimerStays(t *testing.T) {
	r := &relay{drop: time.Hour, wait: time.Hour, start: time.Now()}
	r.stopTimer()
	r.halfDone()
	if r.timer != nil {
		t.Error("a direction that ended set the timer of a relay that is over")
	}
}

// TestRelayTimerRace lets the timer fire at the very time a direction ends: the
// drain timeout must win over the rest of the idle timeout.
func TestRelayTimerRace(t *testing.T) {
	for range 200 {
		ended := make(chan struct{})
		client, served := pipe(t, flows(flow.TCP)["ipv4"], nil)
		u, err := newDialer().socket(served.id.Destination, unix.SOCK_STREAM)
		if err != nil {
			t.Fatal(err)
		}
		r := &relay{conn: served, sock: u, drop: time.Hour, wait: time.Millisecond, hold: -1, start: time.Now(), due: time.Hour}
		r.timer = time.AfterFunc(time.Hour, func() { r.expire(); close(ended) })
		var wg sync.WaitGroup
		wg.Go(func() { r.silent() })
		wg.Go(r.halfDone)
		wg.Wait()
		await(t, "the drain timeout", ended)
		client.Abort()
		if r.reason != flow.ReasonDrain {
			t.Fatalf("ended by %v", r.reason)
		}
	}
}

// TestRelayShutdown: a connection that the stack resets because it stops is not
// one that its client reset.
func TestRelayShutdown(t *testing.T) {
	forRigs(t, Options{}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		r.ctx = ctx
		j := r.join()
		cancel()
		j.client.Abort()
		j.ended(flow.ReasonShutdown)
		wantReset(t, "upstream", j.up)
	})
}

// TestRelayEndsTogether lets both sides end at the same moment, in every pair of
// ways, and wants no hang and nothing left.
func TestRelayEndsTogether(t *testing.T) {
	ways := map[string]func(c halfCloser, abort func()){
		"FIN": func(c halfCloser, _ func()) {
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		},
		"close": func(c halfCloser, _ func()) { _ = c.Close() },
		"RST":   func(_ halfCloser, abort func()) { abort() },
	}
	for clientWay, endClient := range ways {
		for upWay, endUp := range ways {
			t.Run(clientWay+" and "+upWay, func(t *testing.T) {
				forRigs(t, Options{}, func(t *testing.T, r *rig) {
					for range 20 {
						j := r.join()
						var wg sync.WaitGroup
						wg.Go(func() { endClient(j.client, j.client.Abort) })
						wg.Go(func() { endUp(j.up, func() { reset(j.up) }) })
						if clientWay == "close" && upWay == "close" || clientWay == "FIN" && upWay == "FIN" {
							j.ended(flow.ReasonDone)
						} else {
							j.wait()
						}
						wg.Wait()
					}
				})
			})
		}
	}
}
