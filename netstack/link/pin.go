package link

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Pin keeps the calling goroutine on one thread, and that on one of the processors
// this program may use, the n-th counted round; what it returns undoes both. Where
// the kernel refuses, the thread is as free as before.
func Pin(n int) (undo func()) {
	runtime.LockOSThread()
	var before unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil {
		return runtime.UnlockOSThread
	}
	var one unix.CPUSet
	one.Set(nth(&before, n%before.Count()))
	_ = unix.SchedSetaffinity(0, &one)
	return func() {
		_ = unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}
}

// nth is the n-th processor of s.
func nth(s *unix.CPUSet, n int) int {
	cpu := 0
	for ; !s.IsSet(cpu) || n > 0; cpu++ {
		if s.IsSet(cpu) {
			n--
		}
	}
	return cpu
}
