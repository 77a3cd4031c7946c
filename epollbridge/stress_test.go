package epollbridge_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// mailbox is a Waitable that is readable while there are letters in it.
type mailbox struct {
	epollbridge.Registration

	queue   waiter.Queue
	letters atomic.Int64
	calls   atomic.Int32 // of those who have an event of it in hand

	// deleted has, for each generation of the registration, the time when its
	// Delete had returned, 0 before.
	deleted []atomic.Uint64
}

func (m *mailbox) Readiness(waiter.EventMask) waiter.EventMask {
	if m.letters.Load() > 0 {
		return waiter.EventIn
	}
	return 0
}

func (m *mailbox) EventRegister(e *waiter.Entry) error {
	m.queue.EventRegister(e)
	return nil
}

func (m *mailbox) EventUnregister(e *waiter.Entry) { m.queue.EventUnregister(e) }

func (m *mailbox) post() {
	m.letters.Add(1)
	m.queue.Notify(waiter.EventIn)
}

// stress is a Poller with many goroutines at each of its methods.
type stress struct {
	t      *testing.T
	poller *epollbridge.Poller
	boxes  []mailbox
	clock  atomic.Uint64
	read   atomic.Int64                            // letters
	handle func(e epollbridge.Event, began uint64) // began: when its Wait did
	group  sync.WaitGroup
}

func newStress(t *testing.T, boxes, generations int) *stress {
	s := &stress{t: t, poller: epollbridge.New(), boxes: make([]mailbox, boxes)}
	for i := range s.boxes {
		s.boxes[i].deleted = make([]atomic.Uint64, generations+1)
	}
	return s
}

// data says which box and which generation of its registration an event is of.
func data(box int, generation uint32) uint64 { return uint64(box)<<32 | uint64(generation) }

func (s *stress) box(d uint64) (*mailbox, uint32) { return &s.boxes[d>>32], uint32(d) }

// waiters starts n goroutines that take events until the Poller is closed. Every
// other one has little patience.
func (s *stress) waiters(n, room int) {
	for i := range n {
		s.group.Go(func() {
			events := make([]epollbridge.Event, room)
			for {
				timeout := time.Duration(-1)
				if i%2 == 1 {
					timeout = time.Duration(rand.IntN(50)) * time.Microsecond
				}
				began := s.clock.Load()
				n, err := s.poller.Wait(events, timeout)
				if errors.Is(err, epollbridge.ErrClosed) {
					return
				}
				if err != nil {
					s.t.Errorf("Wait: %v", err)
					return
				}
				for _, e := range events[:n] {
					s.handle(e, began)
				}
			}
		})
	}
}

// posters starts n goroutines that post the given number of letters each.
func (s *stress) posters(n, letters int) *sync.WaitGroup {
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			for i := range letters {
				s.boxes[rand.IntN(len(s.boxes))].post()
				if i%16 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	return &group
}

// checkAlive fails for an event of a registration whose Delete had returned before
// the Wait began.
func (s *stress) checkAlive(e epollbridge.Event, began uint64) {
	m, generation := s.box(e.Data)
	if at := m.deleted[generation].Load(); at != 0 && at <= began {
		s.t.Errorf("an event of generation %d, deleted at %d, in a Wait that began at %d", generation, at, began)
	}
}

// churn adds, modifies and deletes one box so many times, and leaves it added.
func (s *stress) churn(box, times int, modes []epollbridge.Events) error {
	m := &s.boxes[box]
	for i := range times {
		generation := uint32(i)
		mode := modes[rand.IntN(len(modes))]
		if err := s.poller.Add(&m.Registration, m, in|mode, data(box, generation)); err != nil {
			return fmt.Errorf("Add: %w", err)
		}
		runtime.Gosched()
		if mode&excl == 0 && i%3 == 0 {
			if err := s.poller.Modify(&m.Registration, in|edge, data(box, generation)); err != nil {
				return fmt.Errorf("Modify: %w", err)
			}
		}
		if err := s.poller.Delete(&m.Registration); err != nil {
			return fmt.Errorf("Delete: %w", err)
		}
		m.deleted[generation].Store(s.clock.Add(1))
		if !m.queue.IsEmpty() {
			return errors.New("Delete left the callback where it was")
		}
	}
	return s.poller.Add(&m.Registration, m, in|modes[0], data(box, uint32(times)))
}

// TestStress: with everything going on at once, no event comes after Delete and
// none is lost.
func TestStress(t *testing.T) {
	const boxes, times, posters, letters = 8, 1500, 2, 15_000
	for _, modes := range [][]epollbridge.Events{{0}, {edge}, {excl}, {edge, 0, excl, edge | excl}} {
		t.Run(fmt.Sprint(modes), func(t *testing.T) {
			s := newStress(t, boxes, times)
			s.handle = func(e epollbridge.Event, began uint64) {
				s.checkAlive(e, began)
				m, _ := s.box(e.Data)
				s.read.Add(m.letters.Swap(0))
			}
			s.waiters(4, 3)
			posting := s.posters(posters, letters)
			churned := make(chan error, boxes)
			for i := range boxes {
				go func() { churned <- s.churn(i, times, modes) }()
			}
			for range boxes {
				if err := await(t, "churning", churned); err != nil {
					t.Error(err)
				}
			}
			posting.Wait()
			eventually(t, "all letters are read", func() bool { return s.read.Load() == posters*letters })
			s.finish()
		})
	}
}

// finish lets the waiters go and looks at what is left.
func (s *stress) finish() {
	s.poller.Close()
	s.group.Wait()
	if err := s.poller.Check(); err != nil {
		s.t.Error(err)
	}
}

// TestStressOneShot: each time it is armed, a OneShot registration is reported
// once at most, so that one goroutine at a time has it; and nothing is lost.
func TestStressOneShot(t *testing.T) {
	const boxes, posters, letters = 4, 3, 15_000
	for _, mode := range []epollbridge.Events{once, once | edge} {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStress(t, boxes, 0)
			s.handle = func(e epollbridge.Event, _ uint64) {
				m, _ := s.box(e.Data)
				if n := m.calls.Add(1); n != 1 {
					t.Errorf("%d goroutines have one OneShot event", n)
				}
				s.read.Add(m.letters.Swap(0))
				runtime.Gosched()
				m.calls.Add(-1)
				if err := s.poller.Modify(&m.Registration, in|mode, e.Data); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Errorf("Modify: %v", err)
				}
			}
			for i := range s.boxes {
				if err := s.poller.Add(&s.boxes[i].Registration, &s.boxes[i], in|mode, data(i, 0)); err != nil {
					t.Fatal(err)
				}
			}
			s.waiters(4, 2)
			s.posters(posters, letters).Wait()
			eventually(t, "all letters are read", func() bool { return s.read.Load() == posters*letters })
			s.finish()
		})
	}
}

// TestStressShared: exclusive waiters of several Pollers lose nothing between them.
func TestStressShared(t *testing.T) {
	const posters, letters, pollers = 3, 10_000, 3
	m := new(mailbox)
	shared := epollbridge.Share(m)
	var read atomic.Int64
	var group sync.WaitGroup
	var all [pollers]*epollbridge.Poller
	var regs [pollers]epollbridge.Registration
	for i := range all {
		p := epollbridge.New()
		all[i] = p
		if err := p.Add(&regs[i], shared, in|excl, 0); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			events := make([]epollbridge.Event, 1)
			for {
				if _, err := p.Wait(events, -1); err != nil {
					return
				}
				read.Add(m.letters.Swap(0))
			}
		})
	}
	// One of them comes and goes, and does not take events along.
	churned := make(chan error, 1)
	go func() {
		churned <- func() error {
			for range 1000 {
				if err := all[0].Delete(&regs[0]); err != nil {
					return err
				}
				if err := all[0].Add(&regs[0], shared, in|excl, 0); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	var posting sync.WaitGroup
	for range posters {
		posting.Go(func() {
			for range letters {
				m.post()
				runtime.Gosched()
			}
		})
	}
	posting.Wait()
	if err := await(t, "churning", churned); err != nil {
		t.Error(err)
	}
	eventually(t, "all letters are read", func() bool { return read.Load() == posters*letters })
	for i, p := range all {
		p.Close()
		if err := p.Delete(&regs[i]); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	if !m.queue.IsEmpty() {
		t.Error("a Shared that nobody watches is still registered")
	}
}

// TestStressClose: Close in the middle of everything lets every caller go, and
// Delete still works.
func TestStressClose(t *testing.T) {
	for range 30 {
		s := newStress(t, 4, 0)
		s.handle = func(e epollbridge.Event, _ uint64) {
			m, _ := s.box(e.Data)
			s.read.Add(m.letters.Swap(0))
		}
		s.waiters(2, 2)
		posting := s.posters(2, 300)
		for i := range s.boxes {
			s.group.Go(func() { s.churnUntilClosed(&s.boxes[i], data(i, 0)) })
		}
		eventually(t, "something is read", func() bool { return s.read.Load() > 0 })
		s.poller.Close()
		posting.Wait()
		s.group.Wait()
		for i := range s.boxes {
			if !s.boxes[i].queue.IsEmpty() {
				t.Error("a callback was left behind")
			}
		}
	}
}

func (s *stress) churnUntilClosed(m *mailbox, data uint64) {
	for {
		if err := s.poller.Add(&m.Registration, m, in, data); err != nil {
			if !errors.Is(err, unix.EBADF) {
				s.t.Errorf("Add: %v", err)
			}
			return
		}
		if err := s.poller.Modify(&m.Registration, in|edge, data); err != nil && !errors.Is(err, unix.EBADF) {
			s.t.Errorf("Modify: %v", err)
		}
		if err := s.poller.Delete(&m.Registration); err != nil {
			s.t.Errorf("Delete: %v", err)
		}
	}
}
