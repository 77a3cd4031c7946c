package proxy

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
)

// trickle writes a byte now and then until c fails.
func trickle(c io.Writer) {
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for range every.C {
		if _, err := c.Write([]byte("x")); err != nil {
			return
		}
	}
}

// TestStall resets a connection one of whose sides takes nothing, although the
// other direction moves all the time.
func TestStall(t *testing.T) {
	o := Options{StallTimeout: 200 * time.Millisecond}
	t.Run("client with window zero", func(t *testing.T) {
		forRelays(t, o, func(t *testing.T, j *joined) {
			var wg sync.WaitGroup
			wg.Go(func() { trickle(j.client) })
			wg.Go(func() { _, _ = io.Copy(io.Discard, j.up) })
			wg.Go(func() { _, _ = j.up.Write(make([]byte, 20<<20)) })
			j.ended(flow.ReasonClientStalled)
			wg.Wait()
			wantReset(t, "client", j.client)
		})
	})
	t.Run("upstream that never reads", func(t *testing.T) {
		forRelays(t, o, func(t *testing.T, j *joined) {
			var wg sync.WaitGroup
			wg.Go(func() { trickle(j.up) })
			wg.Go(func() { _, _ = io.Copy(io.Discard, j.client) })
			wg.Go(func() { _, _ = j.client.Write(make([]byte, 20<<20)) })
			j.ended(flow.ReasonUpstreamStalled)
			wg.Wait()
		})
	})
	t.Run("upstream that closed its half", func(t *testing.T) {
		forRelays(t, o, func(t *testing.T, j *joined) {
			_ = j.up.CloseWrite()
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = j.client.Write(make([]byte, 20<<20)) })
			j.ended(flow.ReasonUpstreamStalled)
			wg.Wait()
		})
	})
}

// TestStallOff: bytes may wait for ever.
func TestStallOff(t *testing.T) {
	t.Parallel()
	forRelays(t, Options{StallTimeout: -1, IdleTimeout: 300 * time.Millisecond}, func(t *testing.T, j *joined) {
		j.fillClient()
		j.ended(flow.ReasonIdle)
	})
}

// TestStallNothingWaits: a side is not stalled when there is nothing for it.
func TestStallNothingWaits(t *testing.T) {
	t.Parallel()
	forRelays(t, Options{StallTimeout: 100 * time.Millisecond}, func(t *testing.T, j *joined) {
		exact := bytesOf(1, defaultWindow) // which fills the client's window and no more
		if _, err := j.up.Write(exact); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the client has it", func() bool { return j.end.unread() == len(exact) })
		pass(t, j.client, j.up)
		pause(300 * time.Millisecond)
		pass(t, j.client, j.up)
		got := make([]byte, len(exact))
		if _, err := io.ReadFull(j.client, got); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStallSlow keeps a connection whose client takes a little now and then, even if
// nothing tells of room so small.
func TestStallSlow(t *testing.T) {
	t.Parallel()
	const times = 75
	every := 20 * time.Millisecond
	forRelays(t, Options{StallTimeout: time.Second}, func(t *testing.T, j *joined) {
		j.end.setReticent()
		go func() { _, _ = j.up.Write(make([]byte, 20<<20)) }()
		eventually(t, "the client's window is full", func() bool { return j.end.unread() == defaultWindow })
		sip(t, j.client, times, every, 1)
		alive(t, j)
	})
}

// TestStallProgress: an upstream that has taken some of what its socket held is not
// stalled, though the socket has not told of room; one that has taken none is.
func TestStallProgress(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		j := newRig(t, onLoop, id, Options{StallTimeout: time.Minute}).join()
		await(t, "the loop to take it", j.served)
		j.fillUpstream()
		j.waitsFor("the upstream is full", upstreamRoom|upstreamBytes)
		// As if it had been full for long and had held more then.
		j.onLoop(func(f *reactorFlow) { f.held.upQueue++ })
		if !j.age(time.Hour) || j.end.peer.unread() != defaultWindow {
			t.Fatal("progress did not count")
		}
		if j.age(time.Hour) {
			t.Error("a stalled flow lived on")
		}
		j.ended(flow.ReasonUpstreamStalled)
	})
}

// sip reads n bytes at each of so many times.
func sip(t *testing.T, c net.Conn, times int, every time.Duration, n int) {
	t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range times {
		<-tick.C
		if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
}

// alive wants the relay to have no end yet.
func alive(t *testing.T, j *joined) {
	t.Helper()
	select {
	case rec := <-j.records:
		j.record = &rec
		t.Errorf("ended by %v", rec.Reason)
	default:
	}
}

// pause lets time pass in which nothing may happen.
func pause(d time.Duration) { <-time.After(d) }

func (c *memConn) setReticent() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.reticent = true
}
