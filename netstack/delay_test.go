package netstack_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/minisock"
)

// startLoop runs a loop until the test ends.
func startLoop(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	wait.Background(t, l.Run)
	return l
}

// TestDelayedACK: an ACK goes out by itself, but later, when there is no answer, and
// with the answer when there is one in time.
func TestDelayedACK(t *testing.T) {
	forFamilies(t, func(t *testing.T, tu tuple) {
		a := newAcceptor()
		r := newRigWith(t, a.handler(), netstack.Options{}, netstack.Deps{Loop: startLoop(t)})
		seq, next := r.connect(tu)
		c := <-a.conns
		delayed := func() uint64 { return r.s.Stats().Flows.Counters[minisock.DelayedACK] }
		inVain := func() uint64 { return r.s.Stats().Flows.Counters[minisock.DelayInVain] }
		b := newBell()
		c.SetNotifier(b)
		begun := time.Now()
		r.send(segment{tuple: tu, flags: ack | psh, seq: seq, ack: next, payload: []byte("hello")}.frame())
		p := r.recvFlags(tu, ack)
		if d := time.Since(begun); p.ack != seq+5 || d < time.Millisecond || delayed() != 1 || inVain() != 1 {
			t.Errorf("acknowledged %d bytes after %v; %d delayed, %d in vain", p.ack-seq, d, delayed(), inVain())
		}
		<-b.c
		if n, err := c.ReadTo(io.Discard); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		// In vain once, so the next is prompt.
		r.send(segment{tuple: tu, flags: ack | psh, seq: seq + 5, ack: next, payload: []byte("again")}.frame())
		if p := r.recvFlags(tu, ack); p.ack != seq+10 || delayed() != 1 {
			t.Errorf("acknowledged %d bytes, %d delayed", p.ack-seq, delayed())
		}
	})
}

// TestDelayedACKWithAnswer: whichever comes first, each byte is acknowledged and
// nothing is sent twice.
func TestDelayedACKWithAnswer(t *testing.T) {
	answer := func(c flow.Conn) {
		var buf bytes.Buffer
		if n, _ := c.ReadTo(&buf); n > 0 {
			_, _ = c.WriteFrom(&buf)
		}
	}
	a := newAcceptor()
	r := newRigWith(t, a.handler(), netstack.Options{}, netstack.Deps{Loop: startLoop(t)})
	tu := tuple4(40000)
	seq, next := r.connect(tu)
	c := <-a.conns
	b := newBell()
	c.SetNotifier(b)
	const rounds = 200
	for range uint32(rounds) {
		r.send(segment{tuple: tu, flags: ack | psh, seq: seq, ack: next, payload: []byte("x")}.frame())
		seq++
		<-b.c
		answer(c)
		p := r.recv("an answer", func(p packet) bool { return len(p.payload) > 0 })
		if p.ack != seq || p.seq != next || string(p.payload) != "x" {
			t.Fatalf("answer %q, seq %d, ack %d; want seq %d, ack %d", p.payload, p.seq, p.ack, next, seq)
		}
		next++
	}
	n := r.s.Stats().Flows.Counters
	if n[minisock.DelayedACK] == 0 {
		t.Error("no ACK was delayed")
	}
	if n[minisock.DelayInVain] == n[minisock.DelayedACK] {
		t.Errorf("%d delayed, all of them in vain", n[minisock.DelayedACK])
	}
}
