package epollbridge_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// Longer runs of the differential tests, and the repetition of one:
//
//	EPOLLBRIDGE_STEPS=1000000 EPOLLBRIDGE_SEED=7 go test ./epollbridge -run TestLike
func diffSteps(t *testing.T, ordinary int) int {
	return int(environ(t, "EPOLLBRIDGE_STEPS", uint64(ordinary)))
}

func diffSeed(t *testing.T) uint64 {
	seed := environ(t, "EPOLLBRIDGE_SEED", uint64(time.Now().UnixNano()))
	t.Logf("EPOLLBRIDGE_SEED=%d", seed)
	return seed
}

func environ(t *testing.T, name string, ordinary uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return ordinary
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// counter is eventfd(2) as a Waitable: what it is ready for and whom it tells of
// what are fs/eventfd.c's, so that the kernel's epoll over eventfds and a Poller
// over counters must agree in everything, the order of events included.
type counter struct {
	queue []*waiter.Entry // in the order in which they are told
	count uint64
}

const counterMax = math.MaxUint64 - 1

func (c *counter) Readiness(waiter.EventMask) waiter.EventMask {
	var ready waiter.EventMask
	if c.count > 0 {
		ready |= waiter.EventIn
	}
	if c.count < counterMax {
		ready |= waiter.EventOut
	}
	return ready
}

// EventRegister puts e first, as the kernel's wait queues do; a waiter.Queue puts
// it last.
func (c *counter) EventRegister(e *waiter.Entry) error {
	c.queue = slices.Insert(c.queue, 0, e)
	return nil
}

func (c *counter) EventUnregister(e *waiter.Entry) {
	i := slices.Index(c.queue, e)
	c.queue = slices.Delete(c.queue, i, i+1)
}

func (c *counter) notify(mask waiter.EventMask) {
	for _, e := range c.queue {
		e.NotifyEvent(mask)
	}
}

// exclusives is the counter for those who wait exclusively: they are told last.
type exclusives struct{ *counter }

func (e exclusives) EventRegister(entry *waiter.Entry) error {
	e.queue = append(e.queue, entry)
	return nil
}

func (c *counter) write(n uint64) {
	if n <= counterMax-c.count {
		c.count += n
		c.notify(waiter.EventIn)
	}
}

func (c *counter) read() {
	if c.count > 0 {
		c.count = 0
		c.notify(waiter.EventOut)
	}
}

// pair is an eventfd and its double.
type pair struct {
	fd     int
	double counter
	shared *epollbridge.Shared // of those who wait for double exclusively
}

// watch is a registration of a pair, in the kernel a duplicate of its descriptor.
type watch struct {
	fd    int
	pair  *pair
	reg   epollbridge.Registration
	where int // index of the epoll and Poller
}

// eventfds is the state of the script.
type eventfds struct {
	t       *testing.T
	rand    *rand.Rand
	epolls  [2]int
	pollers [2]*epollbridge.Poller
	pairs   []*pair
	watches []*watch
	nested  bool // the Pollers have descriptors, which count for EXCLUSIVE: without it
	log     []string
	events  int
}

// TestLikeEpollOverEventfds runs a random script against the kernel's epoll and a
// Poller and compares every error, every event and their order.
func TestLikeEpollOverEventfds(t *testing.T) {
	seed := diffSeed(t)
	steps := diffSteps(t, 200_000)
	const scriptLength = 5000
	events := 0
	for i := 0; i < steps; i += scriptLength {
		s := newEventfds(t, rand.New(rand.NewPCG(seed, uint64(i))))
		for range min(scriptLength, steps-i) {
			s.step()
		}
		events += s.events
		s.close()
	}
	t.Logf("%d steps, %d events compared", steps, events)
}

func newEventfds(t *testing.T, r *rand.Rand) *eventfds {
	s := &eventfds{t: t, rand: r, nested: r.IntN(2) == 0}
	for i := range s.epolls {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		s.epolls[i], s.pollers[i] = fd, epollbridge.New()
		if s.nested {
			fdOf(t, s.pollers[i])
		}
	}
	for range 5 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		p := &pair{fd: fd}
		p.shared = epollbridge.Share(exclusives{&p.double})
		s.pairs = append(s.pairs, p)
		for where := range s.epolls {
			for range 2 {
				dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				s.watches = append(s.watches, &watch{fd: dup, pair: p, where: where})
			}
		}
	}
	return s
}

func (s *eventfds) close() {
	for _, w := range s.watches {
		s.control("delete", unix.EPOLL_CTL_DEL, w, 0)
		unix.Close(w.fd)
	}
	for _, p := range s.pairs {
		unix.Close(p.fd)
		if len(p.double.queue) != 0 {
			s.t.Error("Delete left an entry behind")
		}
	}
	for i := range s.epolls {
		unix.Close(s.epolls[i])
		s.pollers[i].Close()
	}
}

func (s *eventfds) step() {
	w := s.watches[s.rand.IntN(len(s.watches))]
	data := s.rand.Uint64()
	switch op := s.rand.IntN(20); {
	case op < 4:
		s.control("add", unix.EPOLL_CTL_ADD, w, data)
	case op < 7:
		s.control("modify", unix.EPOLL_CTL_MOD, w, data)
	case op < 8:
		s.control("delete", unix.EPOLL_CTL_DEL, w, data)
	case op < 12:
		s.write(w.pair)
	case op < 14:
		s.read(w.pair)
	default:
		s.wait(w.where, 1+s.rand.IntN(12))
	}
}

func (s *eventfds) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *eventfds) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nlast of %d steps:\n%s", fmt.Sprintf(format, args...), len(s.log),
		strings.Join(s.log[max(0, len(s.log)-60):], "\n"))
}

// interest is a random set of events, now and then one that is refused.
func (s *eventfds) interest() epollbridge.Events {
	e := []epollbridge.Events{0, in, out, in | out}[s.rand.IntN(4)]
	switch s.rand.IntN(8) {
	case 0, 1:
		e |= edge
	case 2:
		e |= once
	case 3:
		e |= edge | once
	case 4:
		e |= excl
	case 5:
		e |= excl | []epollbridge.Events{edge, once}[s.rand.IntN(2)]
	}
	if s.nested {
		e &^= excl
	}
	return e
}

func (s *eventfds) control(name string, op int, w *watch, data uint64) {
	e := s.interest()
	s.logf("%s fd %d at %d: %v data %x", name, w.fd, w.where, e, data)
	kernel := unix.EpollCtl(s.epolls[w.where], op, w.fd, &unix.EpollEvent{
		Events: uint32(e), Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32)),
	})
	var bridge error
	switch p := s.pollers[w.where]; op {
	case unix.EPOLL_CTL_ADD:
		var object epollbridge.Waitable = &w.pair.double
		if e&excl != 0 {
			object = w.pair.shared
		}
		bridge = p.Add(&w.reg, object, e, data)
	case unix.EPOLL_CTL_MOD:
		bridge = p.Modify(&w.reg, e, data)
	case unix.EPOLL_CTL_DEL:
		bridge = p.Delete(&w.reg)
	}
	if kernel != bridge { //nolint:errorlint // the very errno is wanted
		s.fail("%s: the kernel says %v, the Poller %v", name, kernel, bridge)
	}
}

func (s *eventfds) write(p *pair) {
	n := []uint64{1, 3, counterMax - 4, counterMax - p.double.count}[s.rand.IntN(4)]
	s.logf("write %d to fd %d", n, p.fd)
	_, err := unix.Write(p.fd, binary.NativeEndian.AppendUint64(nil, n))
	if err != nil && err != unix.EAGAIN {
		s.fail("write: %v", err)
	}
	p.double.write(n)
}

func (s *eventfds) read(p *pair) {
	s.logf("read fd %d", p.fd)
	var b [8]byte
	n, _ := unix.Read(p.fd, b[:])
	if got := binary.NativeEndian.Uint64(b[:]); n == 8 && got != p.double.count {
		s.fail("fd %d holds %d, its double %d", p.fd, got, p.double.count)
	}
	p.double.read()
}

func (s *eventfds) wait(where, room int) {
	s.logf("wait at %d, room for %d", where, room)
	var kernel [16]unix.EpollEvent
	k, err := unix.EpollWait(s.epolls[where], kernel[:room], 0)
	if err != nil {
		s.fail("epoll_wait: %v", err)
	}
	if s.nested && k > 0 && !readable(s.t, fdOf(s.t, s.pollers[where])) {
		s.fail("the Poller's descriptor is not readable")
	}
	var bridge [16]epollbridge.Event
	b, err := s.pollers[where].Wait(bridge[:room], 0)
	if err != nil {
		s.fail("Wait: %v", err)
	}
	want, got := make([]epollbridge.Event, k), bridge[:b]
	for i, e := range kernel[:k] {
		want[i] = event(epollbridge.Events(e.Events), uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32)
	}
	s.logf("\t%v", want)
	if fmt.Sprint(want) != fmt.Sprint(got) {
		s.fail("the kernel returned\n\t%v\nthe Poller\n\t%v", want, got)
	}
	s.events += k
	if err := s.pollers[where].Check(); err != nil {
		s.fail("%v", err)
	}
}
