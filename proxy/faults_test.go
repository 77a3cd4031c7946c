package proxy

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
)

// TestBlackHoles: dials that nobody answers hold up no other, each ends by its own
// timeout, and nothing of them is left.
func TestBlackHoles(t *testing.T) {
	const dead = 200
	forRigs(t, Options{ConnectTimeout: time.Second}, func(t *testing.T, r *rig) {
		silent := fullListener(t, r.id.Destination.Addr())
		before := descriptors()
		answers := make(chan string, dead)
		var served sync.WaitGroup
		for range dead {
			req := newRequest(t, r.to(silent), nil)
			served.Go(func() {
				r.h.HandleTCP(r.ctx, req)
				answers <- <-req.answered
			})
		}
		eventually(t, "all of them dial", func() bool { return descriptors() >= before+dead })
		start := time.Now()
		j := r.join()
		pass(t, j.client, j.up)
		pass(t, j.up, j.client)
		if d := time.Since(start); d > time.Second/2 {
			t.Errorf("a connection beside %d black holes took %v", dead, d)
		}
		for range dead {
			if a := await(t, "the end of a dial", answers); a != "drop" {
				t.Errorf("a black hole was answered by %s", a)
			}
		}
		served.Wait()
		for range dead {
			if rec := <-r.records; rec.Result != DialTimeout {
				t.Errorf("recorded %v", rec.Result)
			}
		}
		j.cut()
		eventually(t, "no socket is left", func() bool { return descriptors() == before })
	})
}

// TestBlackHolesAtTheEnd: dials under way end with the stack.
func TestBlackHolesAtTheEnd(t *testing.T) {
	const dead = 50
	forRigs(t, Options{ConnectTimeout: time.Hour}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		r.ctx = ctx
		silent := fullListener(t, r.id.Destination.Addr())
		before := descriptors()
		var served sync.WaitGroup
		for range dead {
			served.Go(func() { r.h.HandleTCP(r.ctx, newRequest(t, r.to(silent), nil)) })
		}
		eventually(t, "all of them dial", func() bool { return descriptors() >= before+dead })
		cancel()
		served.Wait()
		eventually(t, "no socket is left", func() bool { return descriptors() == before })
	})
}

// TestTrickle: a connection that moves a byte now and then is served while
// others move all they can both ways, one faces an upstream that reads nothing and
// one an upstream that resets.
func TestTrickle(t *testing.T) {
	const bulk, size, rounds = 3, 32 << 20, 100
	forRigs(t, Options{}, func(t *testing.T, r *rig) {
		var wg sync.WaitGroup
		for range bulk {
			j := r.join()
			wg.Go(func() { exchangeUnchecked(t, j, size) })
		}
		stuck := r.join()
		stuck.fillUpstream()
		resets := r.join()
		reset(resets.up)
		wantReset(t, "client", resets.client)

		slow := r.join()
		var worst time.Duration
		for range rounds {
			start := time.Now()
			pass(t, slow.client, slow.up)
			pass(t, slow.up, slow.client)
			worst = max(worst, time.Since(start))
			pause(2 * time.Millisecond)
		}
		t.Logf("the slowest of %d round trips took %v", rounds, worst)
		if worst > patience/2 { // it never waits for a bulk flow to end
			t.Errorf("a round trip took %v beside bulk", worst)
		}
		stuck.client.Abort()
		wg.Wait()
	})
}

// exchangeUnchecked moves size bytes both ways.
func exchangeUnchecked(t *testing.T, j *joined, size int) {
	t.Helper()
	block := make([]byte, 1<<20)
	pump := func(c halfCloser) {
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				t.Error(err)
				return
			}
		}
		_ = c.CloseWrite()
	}
	drain := func(c io.Reader) {
		if n, err := io.Copy(io.Discard, struct{ io.Reader }{c}); n != int64(size) || err != nil {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { pump(j.client) })
	wg.Go(func() { pump(j.up) })
	wg.Go(func() { drain(j.client) })
	wg.Go(func() { drain(j.up) })
	wg.Wait()
}

// TestSilentClient: a client that connects and says nothing costs until the idle
// timeout, and then is gone at both ends.
func TestSilentClient(t *testing.T) {
	forRigs(t, Options{IdleTimeout: 200 * time.Millisecond}, func(t *testing.T, r *rig) {
		var all []*joined
		for range 20 {
			all = append(all, r.join())
		}
		for range all {
			if rec := await(t, "the end", r.records); rec.Reason != flow.ReasonIdle {
				t.Errorf("ended by %v", rec.Reason)
			}
		}
		for _, j := range all {
			j.record = new(Record) // taken above
			wantReset(t, "client", j.client)
			wantReset(t, "upstream", j.up)
		}
	})
}
