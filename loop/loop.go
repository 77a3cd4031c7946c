package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEvents is how many descriptors one turn serves: enough to spread the system
// call's cost, few enough that tasks do not wait long.
const maxEvents = 128

// Loop is an event loop. Make it with New, let Run serve it.
type Loop struct {
	epfd, wakefd int
	events       [maxEvents]unix.EpollEvent
	sources      []*Source // by descriptor; the loop's own
	generation   uint32    // of the last Add
	wheel        wheel
	alarms       []*Alarm // that are set
	quit         Task
	quitting     bool

	asleep   atomic.Bool
	patience patience

	mu         sync.Mutex
	head, tail *Task // posted and not yet run
	closed     bool  // no more tasks: Run has returned

	stats stats
}

// Stats counts what a loop did.
type Stats struct {
	Turns  uint64 // rounds of the loop
	Sleeps uint64 // turns that had nothing left to do and asked the kernel, waiting if need be
	Spins  uint64 // turns that had nothing left to do and need not have slept
	Wakes  uint64 // sleeps that a Post ended
	Events uint64 // descriptors served
	Tasks  uint64 // tasks run
	Timers uint64 // timers fired
}

type stats struct{ turns, sleeps, spins, wakes, events, tasks, timers atomic.Uint64 }

// New returns a loop that nothing runs yet. Its descriptors are released at the
// end of Run, or by Close if Run is never called.
func New() (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("loop: epoll: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("loop: eventfd: %w", err)
	}
	l := &Loop{epfd: epfd, wakefd: wakefd}
	l.wheel.init(time.Now())
	l.patience.init()
	l.quit.Init(RunnerFunc(func() { l.quitting = true }))
	// Edge-triggered, so that it need never be read.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: int32(wakefd)} //nolint:gosec // a descriptor
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &ev); err != nil {
		return nil, errors.Join(fmt.Errorf("loop: epoll: %w", err), l.Close())
	}
	return l, nil
}

// Close releases a loop that never ran; after Run it does nothing.
func (l *Loop) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return errors.Join(unix.Close(l.epfd), unix.Close(l.wakefd))
}

// Run serves the loop until ctx is done, and releases it. Tasks that were posted
// before that have run; timers and sources are forgotten.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Post(&l.quit) })
	defer stop()
	for !l.quitting {
		l.turn()
	}
	for l.runTasks() {
		continue
	}
	return l.Close()
}

// turn is one round: sources, tasks, timers.
func (l *Loop) turn() {
	l.stats.turns.Add(1)
	if !l.pending() {
		runtime.Gosched()
	}
	var n int
	if l.pending() {
		n = l.poll(0)
	} else {
		n = l.sleep() // it does not, if a descriptor is ready
	}
	for i := range n {
		l.dispatch(&l.events[i])
	}
	l.runTasks()
	l.runTimers()
}

// sleep waits, mostly in the kernel, for a descriptor, a Post or the next timer.
func (l *Loop) sleep() int {
	start := time.Now()
	defer func() { l.patience.note(time.Since(start)) }()
	if l.patience.spins() {
		if n, came := l.spin(start); came {
			l.stats.spins.Add(1)
			return n
		}
	}
	l.asleep.Store(true)
	defer l.asleep.Store(false)
	if l.pending() {
		return 0
	}
	l.stats.sleeps.Add(1)
	return l.poll(l.wait(start))
}

// poll fills l.events; timeout is in milliseconds, negative without end.
func (l *Loop) poll(timeout int) int {
	var n uintptr
	var e unix.Errno
	if timeout == 0 {
		// Never blocks, so the scheduler need not hear of it.
		//nolint:gosec // epoll_pwait fills the loop's own array
		n, _, e = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])), maxEvents, 0, 0, 0)
	} else {
		//nolint:gosec // the same
		n, _, e = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])), maxEvents, uintptr(timeout), 0, 0)
	}
	if e != 0 {
		return 0 // EINTR; anything else is a bug of ours that tests would see
	}
	return int(n)
}

// dispatch calls the source an event is for, unless the descriptor was given back
// since: an earlier event of this very batch may have removed it, and its number
// may be another's by now.
func (l *Loop) dispatch(ev *unix.EpollEvent) {
	fd := int(ev.Fd)
	if fd == l.wakefd {
		l.stats.wakes.Add(1)
		return
	}
	if fd >= len(l.sources) {
		return
	}
	s := l.sources[fd]
	if s == nil || s.generation != uint32(ev.Pad) { //nolint:gosec // our own number, put there by Add
		return
	}
	l.stats.events.Add(1)
	s.handler.HandleEvents(ev.Events)
}

// Stats returns a snapshot; any goroutine may call it.
func (l *Loop) Stats() Stats {
	return Stats{
		Turns: l.stats.turns.Load(), Sleeps: l.stats.sleeps.Load(), Spins: l.stats.spins.Load(), Wakes: l.stats.wakes.Load(),
		Events: l.stats.events.Load(), Tasks: l.stats.tasks.Load(), Timers: l.stats.timers.Load(),
	}
}
