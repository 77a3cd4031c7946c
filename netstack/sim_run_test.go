package netstack_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/offload"
)

// sim is one run of the simulation. The test's goroutine does what is random, what
// happens on the wire, and what the applications do; the stacks' goroutines run while
// it settles.
type sim struct {
	*testing.T
	rnd     *rand.Rand
	clock   simClock
	settler settler
	wire    wire
	client  *stack.Stack
	stack   *netstack.Stack
	scripts []*script
	current map[tuple]*script // of each flow
	bursts  bool              // what arrives at one instant is read in one batch
	hasty   bool              // clients have no TIME_WAIT, and come back at once
	verbose bool

	mu   sync.Mutex
	todo []func()
	bad  []string
}

// fail notes a fault.
func (s *sim) fail(format string, args ...any) {
	what := fmt.Sprintf("%.6f ", s.clock.elapsed().Seconds()) + fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, what)
	s.logf("FAULT %s", what)
}

// do lets run call f. It may be called from anywhere.
func (s *sim) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo = append(s.todo, f)
}

// wake lets run play a part.
func (s *sim) wake(p *player) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.queued {
		p.queued = true
		s.todo = append(s.todo, p.play)
	}
}

func (s *sim) later(d time.Duration, f func()) { s.clock.AfterFunc(d, func() { s.do(f) }) }

// turn does what there is to do now and reports whether that was anything.
func (s *sim) turn() bool {
	moved := s.wire.collect()
	s.mu.Lock()
	todo := s.todo
	s.todo = nil
	s.mu.Unlock()
	for _, f := range todo {
		f()
	}
	return moved || len(todo) > 0
}

// run goes from event to event until done or the end, and reports which.
func (s *sim) run(end time.Duration, done func() bool) bool {
	for {
		s.settler.settle()
		if s.turn() {
			continue
		}
		if done() {
			return true
		}
		if !s.clock.step(end) {
			return false
		}
		for s.bursts && s.clock.step(s.clock.elapsed()) {
		}
	}
}

// logf writes a line if TRACE is set.
func (s *sim) logf(format string, args ...any) {
	if s.verbose {
		fmt.Printf(format+"\n", args...)
	}
}

// trace logs a packet on the wire.
func (w *wire) trace(way int, what string, b []byte, p *offload.Packet) {
	if !w.s.verbose {
		return
	}
	arrow := [...]string{">", "<"}[way]
	t := flowOf(p, way)
	if p.Proto != offload.ProtoTCP {
		w.s.logf("%.6f %v %s %v proto %d %s", w.s.clock.elapsed().Seconds(), t.src, arrow, t.dst, p.Proto, what)
		return
	}
	g := parse(w.s, append(make([]byte, 10), b...))
	w.s.logf("%.6f %v %s %v flags %#x seq %d ack %d len %d window %d options %x %s", w.s.clock.elapsed().Seconds(), t.src, arrow, t.dst,
		g.TCPFlags, g.seq, g.ack, len(g.payload), binary.BigEndian.Uint16(b[p.L3Len+14:]), b[p.L3Len+20:p.L3Len+p.L4Len], what)
}
