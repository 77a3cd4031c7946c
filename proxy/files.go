package proxy

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// filesPause is how long no socket is asked for after the kernel had none,
	// unless one is closed before.
	filesPause = 100 * time.Millisecond
	// filesQuiet is how long every socket asked for must have been there for a
	// shortage to be over. Near the limit each flow that ends lets another
	// begin, and that is one shortage, not many.
	filesQuiet = 5 * time.Second
	// filesReserve is how many descriptors flows leave to the rest of the
	// process, which serves metrics and reads the host's addresses meanwhile;
	// at most an eighth.
	filesReserve = 64
)

// FilesEvent is the begin or the end of a time in which new flows are refused
// because the process, or the host, has no file descriptor left for them.
type FilesEvent struct {
	Over    bool
	Limit   int           // descriptors that the process may have
	Refused uint64        // valid iff Over
	Lasted  time.Duration // valid iff Over
}

// files gives out the descriptors of upstream sockets. At the limit it refuses
// without asking the kernel, until a socket is closed or a pause has passed.
type files struct {
	start time.Time
	limit atomic.Int64 // of the process, as it was read last
	until atomic.Int64 // no socket before, since start; 0 is no pause
	short atomic.Bool  // a shortage is under way

	mu        sync.Mutex
	began     time.Duration // valid iff short
	failed    time.Duration // valid iff short: the last time
	refused   uint64        // since began
	shortages uint64
	tell      func(FilesEvent)
	quiet     time.Duration
}

func newFiles() *files {
	f := &files{start: time.Now(), quiet: filesQuiet, tell: func(FilesEvent) {}}
	f.readLimit()
	return f
}

// readLimit asks how many descriptors the process may have.
func (f *files) readLimit() int64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return f.limit.Load()
	}
	n := int64(min(l.Cur, 1<<30))
	f.limit.Store(n)
	return n
}

// socket is unix.Socket within the limit. Its error may be EMFILE or ENFILE.
func (f *files) socket(family, typ int) (int, error) {
	if until := f.until.Load(); until != 0 && int64(time.Since(f.start)) < until {
		f.fail()
		return -1, unix.EMFILE
	}
	fd, err := unix.Socket(family, typ, 0)
	if err == nil && !f.within(fd) {
		_ = unix.Close(fd)
		fd, err = -1, unix.EMFILE
	}
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		f.until.Store(int64(time.Since(f.start) + filesPause))
		f.fail()
	case f.short.Load():
		f.until.Store(0)
		f.recover()
	}
	return fd, err
}

// within reports whether fd leaves the reserve untouched. The kernel gives out the
// lowest number, so all below it are taken.
func (f *files) within(fd int) bool {
	fits := func(limit int64) bool { return int64(fd) < limit-min(filesReserve, limit/8) }
	return fits(f.limit.Load()) || fits(f.readLimit())
}

// freed notes that a socket was closed.
func (f *files) freed() {
	if f.until.Load() != 0 {
		f.until.Store(0)
	}
}

// fail counts a refusal, and tells of the first of a shortage.
func (f *files) fail() {
	f.mu.Lock()
	now := time.Since(f.start)
	first := !f.short.Swap(true)
	if first {
		f.began, f.refused = now, 0
		f.shortages++
	}
	f.failed = now
	f.refused++
	tell := f.tell
	f.mu.Unlock()
	if first {
		tell(FilesEvent{Limit: int(f.readLimit())})
	}
}

// recover ends a shortage if the last refusal is long ago.
func (f *files) recover() {
	f.mu.Lock()
	now := time.Since(f.start)
	if !f.short.Load() || now-f.failed < f.quiet {
		f.mu.Unlock()
		return
	}
	f.short.Store(false)
	e := FilesEvent{Over: true, Limit: int(f.limit.Load()), Refused: f.refused, Lasted: f.failed - f.began}
	tell := f.tell
	f.mu.Unlock()
	tell(e)
}

// onShortage sets who is told.
func (f *files) onShortage(tell func(FilesEvent)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell = tell
}

func (f *files) stats() (short bool, shortages uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.short.Load(), f.shortages
}
