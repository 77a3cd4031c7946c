package epollbridge_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tungate/tungate/epollbridge"
)

// world is one side of the comparison: the kernel's sockets and epoll, or two
// gVisor stacks and a Poller. Its ends are numbered alike in both.
type world interface {
	// dial begins a connection to the listener from the new end, accept takes
	// the next connection as the new end.
	dial(end int)
	accept(end int)
	write(end, n int) int
	read(end, n int) (int, outcome)
	// fill writes until nothing is taken any more, drain reads from peer all that
	// end wrote.
	fill(end int)
	drain(end, peer int)
	shutdown(end int)
	// reset and close end an end, which is gone then.
	reset(end int)
	close(end int)
	// settle returns when nothing moves any more and the connection is in the
	// state that the script expects of it.
	settle(pending int, ends ...*end)

	// The calls of epoll; a watch is a registration of an end, or of the listener.
	add(w *watched, e epollbridge.Events, data uint64) error
	modify(w *watched, e epollbridge.Events, data uint64) error
	delete(w *watched) error
	wait() []epollbridge.Event
	// ready is what an end is ready for, for the report of a failure.
	ready(end int) epollbridge.Events
	shut()
}

// outcome is why a read returned no more.
type outcome string

const (
	more  outcome = "more"  // nothing now
	ended outcome = "ended" // an end of stream, or an error that says as much
)

// listenerEnd is the number of the listener.
const listenerEnd = -1

// end is what the script knows of one end of a connection.
type end struct {
	id               int
	peer             *end
	gone             bool // closed here
	finSent, finCame bool
	finAcked         bool // and told before the last Wait; of the kernel's end alone
	broken           bool // reset from either side
	full             bool // fill was called and drain not yet
	unread           int  // bytes that can be read; valid iff not peer.full
	watches          []*watched
}

// final reports that nothing can happen on the connection any more.
func (e *end) final() bool { return e.broken || e.finSent && e.finCame }

// watched is a registration in both worlds.
type watched struct {
	id     int
	end    *end // nil: the listener
	fd     int  // the kernel's duplicate of the end's descriptor
	reg    epollbridge.Registration
	added  bool
	events epollbridge.Events
	data   uint64
	// vague: since the last Wait something was told in one world alone.
	vague bool
}

func (w *watched) endID() int {
	if w.end == nil {
		return listenerEnd
	}
	return w.end.id
}

// script runs the same random steps in both worlds.
type script struct {
	t        *testing.T
	rand     *rand.Rand
	kernel   *kernelWorld
	bridge   *bridgeWorld
	listener []*watched
	pending  []*end // dialled and not accepted
	ends     []*end
	nextEnd  int
	nextData uint64
	byData   map[uint64]*watched

	log                    []string
	compared, vague, steps int
}

// TestLikeEpollOverTCP runs random scripts over TCP against the kernel's epoll on
// loopback sockets and against a Poller on two stacks joined in memory, and
// compares every error and every event that is returned. It forgives what doc.go
// lists as the objects' differences, and counts how often.
func TestLikeEpollOverTCP(t *testing.T) {
	seed := diffSeed(t)
	steps := diffSteps(t, 40_000)
	const scriptLength = 2000
	compared, vague := 0, 0
	for i := 0; i < steps; i += scriptLength {
		s := &script{
			t: t, rand: rand.New(rand.NewPCG(seed, uint64(i))),
			kernel: newKernelWorld(t), bridge: newBridgeWorld(t),
			byData: map[uint64]*watched{},
		}
		s.listener = s.newWatches(nil, 2)
		for range min(scriptLength, steps-i) {
			s.step()
		}
		s.close()
		compared += s.compared
		vague += s.vague
	}
	t.Logf("%d steps, %d events compared, %d edges forgiven", steps, compared, vague)
	if vague*20 > compared {
		t.Errorf("%d of %d events are forgiven: the comparison is blunt", vague, compared)
	}
}

func (s *script) close() {
	for len(s.ends) > 0 {
		s.end(s.ends[0], "reset", world.reset)
	}
	for _, e := range s.pending {
		s.each(func(w world) { w.reset(e.id) })
	}
	s.kernel.shut()
	s.bridge.shut()
}

func (s *script) each(f func(world)) {
	f(s.kernel)
	f(s.bridge)
}

func (s *script) settle(ends ...*end) {
	s.each(func(w world) { w.settle(len(s.pending), ends...) })
}

func (s *script) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *script) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nlast of %d steps:\n%s", fmt.Sprintf(format, args...), s.steps,
		strings.Join(s.log[max(0, len(s.log)-300):], "\n"))
}

func (s *script) newWatches(e *end, n int) []*watched {
	var l []*watched
	for range n {
		l = append(l, &watched{id: len(l), end: e, fd: -1})
	}
	return l
}

// step does one random thing that is possible now.
func (s *script) step() {
	s.steps++
	if len(s.ends) < 4 || len(s.ends) < 12 && s.rand.IntN(20) == 0 {
		s.connect()
		return
	}
	e := s.ends[s.rand.IntN(len(s.ends))]
	switch op := s.rand.IntN(100); {
	case op < 10:
		s.addWatch(s.anyWatch(e))
	case op < 16:
		s.modifyWatch(s.anyWatch(e))
	case op < 20:
		s.deleteWatch(s.anyWatch(e))
	case op < 38:
		s.write(e)
	case op < 48:
		s.read(e)
	case op < 50:
		s.fill(e)
	case op < 54:
		s.drain(e)
	case op < 58:
		s.shutdown(e)
	case op < 60:
		s.end(e, "reset", world.reset)
	case op < 63:
		s.end(e, "close", world.close)
	default:
		s.wait()
	}
}

// connect goes one step on with a new connection.
func (s *script) connect() {
	if len(s.pending) == 0 || len(s.pending) < 3 && s.rand.IntN(3) == 0 {
		a, b := s.newEnd(), s.newEnd()
		a.peer, b.peer = b, a
		s.logf("dial end %d", a.id)
		s.each(func(w world) { w.dial(a.id) })
		s.pending = append(s.pending, a)
		s.settle(a)
		return
	}
	a := s.pending[0]
	s.pending = s.pending[1:]
	s.logf("accept end %d, peer of %d", a.peer.id, a.id)
	s.each(func(w world) { w.accept(a.peer.id) })
	s.ends = append(s.ends, a, a.peer)
	s.settle(a, a.peer)
}

func (s *script) newEnd() *end {
	e := &end{id: s.nextEnd}
	s.nextEnd++
	e.watches = s.newWatches(e, 2)
	return e
}

func (s *script) write(e *end) {
	const most = 48 << 10 // unread, of what the smallest receive buffer holds
	n := 1 + s.rand.IntN(4<<10)
	if e.finSent || e.broken || e.full || e.peer.unread+n > most {
		return
	}
	s.logf("write %d to end %d", n, e.id)
	s.each(func(w world) {
		if got := w.write(e.id, n); got != n {
			s.fail("%T took %d bytes of %d", w, got, n)
		}
	})
	if e.peer.gone {
		e.reset() // answered with RST
	} else {
		e.peer.unread += n
		e.peer.told(in, in)
	}
	s.settle(e, e.peer)
}

func (s *script) read(e *end) {
	n := 1 + s.rand.IntN(8<<10)
	if e.peer.full {
		return
	}
	s.logf("read %d of end %d", n, e.id)
	k, ko := s.kernel.read(e.id, n)
	b, bo := s.bridge.read(e.id, n)
	if k != b || ko != bo {
		s.fail("the kernel read %d, %v, the bridge's world %d, %v", k, ko, b, bo)
	}
	e.unread -= k
	s.settle(e, e.peer)
}

// fill makes e full. How much that is differs, and how often it became writable
// meanwhile.
func (s *script) fill(e *end) {
	if e.finSent || e.final() || e.full || e.peer.gone {
		return
	}
	s.logf("fill end %d", e.id)
	e.full = true
	s.each(func(w world) { w.fill(e.id) })
	for _, w := range e.watches {
		w.vague = true
	}
	e.peer.told(in, in)
	s.settle(e, e.peer)
}

// drain makes e empty. What it is between full and empty differs, too.
func (s *script) drain(e *end) {
	if !e.full || e.broken || e.peer.gone {
		return
	}
	s.logf("drain end %d", e.id)
	e.full, e.peer.unread = false, 0
	kernel := out
	if s.kernel.ready(e.id)&out != 0 {
		kernel = 0 // told before: a delayed ACK made room
	}
	e.told(kernel, out)
	s.each(func(w world) { w.drain(e.id, e.peer.id) })
	for _, w := range e.peer.watches {
		w.vague = true // whether there was more to arrive depends on the buffers
	}
	s.settle(e, e.peer)
}

func (s *script) shutdown(e *end) {
	if e.finSent || e.broken || e.full {
		return
	}
	s.logf("shutdown end %d", e.id)
	s.each(func(w world) { w.shutdown(e.id) })
	e.sendFin()
	s.settle(e, e.peer)
}

// end deletes what watches an end and closes it by how. A closed descriptor
// leaves its epolls; an object must be deleted.
func (s *script) end(e *end, name string, how func(world, int)) {
	if e.gone || name == "close" && e.full && !e.broken {
		return
	}
	for _, w := range e.watches {
		if w.added {
			s.deleteWatch(w)
		}
	}
	s.logf("%s end %d", name, e.id)
	s.each(func(w world) { how(w, e.id) })
	switch {
	case e.final():
	case name == "reset" || e.unread > 0 || e.peer.full:
		e.reset()
	default:
		e.sendFin()
	}
	e.gone = true
	for i, other := range s.ends {
		if other == e {
			s.ends = append(s.ends[:i], s.ends[i+1:]...)
			break
		}
	}
	s.settle(e, e.peer)
}

// sendFin notes that e sent FIN, and reset that the connection was reset.
func (e *end) sendFin() {
	if e.finSent {
		return
	}
	e.finSent, e.peer.finCame = true, true
	e.told(everything, out)
	e.peer.told(everything, in)
}

func (e *end) reset() { e.broken, e.peer.broken = true, true }
