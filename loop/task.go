package loop

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Runner is what a Task runs.
type Runner interface {
	// RunTask runs on the loop's goroutine.
	RunTask()
}

// RunnerFunc is a function as a Runner.
type RunnerFunc func()

// RunTask calls f.
func (f RunnerFunc) RunTask() { f() }

// Task is work that can be posted. Embed it in what it works on.
type Task struct {
	run    Runner
	next   *Task // guarded by Loop.mu
	posted atomic.Bool
}

// Init sets what the task runs, before the first Post.
func (t *Task) Init(r Runner) { t.run = r }

// Post lets t run on the loop's goroutine soon, once, however often it is posted
// before it does. It may be called from anywhere and under any lock, allocates
// nothing, and reports false after the loop has ended.
func (l *Loop) Post(t *Task) bool {
	if t.posted.Swap(true) {
		return true
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		t.posted.Store(false)
		return false
	}
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
	l.mu.Unlock()
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		one := uint64(1)
		// The counter cannot overflow at one a wake-up, so this cannot block.
		//nolint:gosec // a write of eight bytes from the stack
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wakefd), uintptr(unsafe.Pointer(&one)), 8)
	}
	return true
}

func (l *Loop) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head != nil
}

// runTasks runs what is posted now and reports whether there was anything.
func (l *Loop) runTasks() bool {
	l.mu.Lock()
	t := l.head
	l.head, l.tail = nil, nil
	l.mu.Unlock()
	if t == nil {
		return false
	}
	for t != nil {
		next := t.next
		t.next = nil
		// Before it runs: news that arrives while it does must post it again.
		t.posted.Store(false)
		l.stats.tasks.Add(1)
		t.run.RunTask()
		t = next
	}
	return true
}
