package memory

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leastRoom is how much the heap may always grow before it is collected.
	leastRoom = 16 << 20
	// share of what is alive that it may grow by: two fifths.
	shareNum, shareDen = 2, 5

	// checkEvery is how often use is compared with the limit: at 20,000
	// connections a second and 8 KB each that is 16 MB.
	checkEvery = 100 * time.Millisecond
	// high and low are the percentages of the limit at which pressure begins and
	// ends.
	high, low = 90, 85
	// ours is the percentage of the limit at which Go collects before it takes
	// more: below low, so that garbage alone is no pressure, and keeps none up.
	ours = low - 1
)

// Users are what a Pacer asks and tells. All but Alive are called on Run's goroutine.
type Users struct {
	// Pressure is told with true when nine tenths of the limit are used, and with
	// false when that is over.
	Pressure func(on bool)
	// Shed is called once a second while pressure lasts for longer than that: it is
	// to end some idle connections, and returns how many. What a call brings is
	// seen before the next.
	Shed func() int
	// Connections is how many are open.
	Connections func() int
	// Alive, if not nil, is told after each collection how many bytes it has found
	// alive, on a goroutine of the runtime's; never if GOGC is set.
	Alive func(bytes uint64)
}

// Pacer sets the pace of the garbage collector while it runs.
type Pacer struct {
	limit   int64 // 0 is none
	users   Users
	pace    int // GOGC, as of the last collection
	stopped atomic.Bool
}

// New returns a Pacer for a limit in bytes; 0 is that of the control group, if there
// is one.
func New(limit int64, u Users) *Pacer {
	if limit == 0 {
		limit = groupLimit("/proc/self/cgroup", "/sys/fs/cgroup")
	}
	return &Pacer{limit: limit, users: u}
}

// Limit is the limit in bytes, 0 if there is none.
func (p *Pacer) Limit() int64 { return p.limit }

// Share is a quarter of the limit, or of the machine's memory if there is none: what
// buffers may take.
func (p *Pacer) Share() int64 {
	if p.limit > 0 {
		return p.limit / 4
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 1 << 30
	}
	return int64(s.Totalram) * int64(s.Unit) / 4
}

// Run sets the pace until ctx is done, and then what it found.
func (p *Pacer) Run(ctx context.Context) error {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set && p.limit > 0 {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(p.limit / 100 * ours))
	}
	if _, set := os.LookupEnv("GOGC"); !set {
		p.pace = percent(alive())
		defer debug.SetGCPercent(debug.SetGCPercent(p.pace))
		p.stopped.Store(false)
		defer p.stopped.Store(true)
		p.afterCollection()
	}
	p.watch(ctx)
	return nil
}

// afterCollection sets the percentage anew after each collection, which is when the
// sentinel, that nothing refers to, is found.
func (p *Pacer) afterCollection() {
	type sentinel struct{ _ [16]byte } // too large for the allocator to share a block
	runtime.SetFinalizer(new(sentinel), func(*sentinel) {
		if p.stopped.Load() {
			return
		}
		bytes := alive()
		if p.users.Alive != nil {
			p.users.Alive(bytes)
		}
		// To set it stops the world, so small changes are left alone.
		if now := percent(bytes); now*10 < p.pace*9 || now*10 > p.pace*11 {
			p.pace = now
			debug.SetGCPercent(now)
		}
		p.afterCollection()
	})
}

// percent is how much the heap may grow, of what is alive.
func percent(alive uint64) int {
	if alive == 0 {
		return 100
	}
	room := max(leastRoom, alive/shareDen*shareNum)
	return int(min(1000, room*100/alive))
}

// alive is what the last collection found alive, in bytes.
func alive() uint64 { return read("/gc/heap/live:bytes") }

// used is what Go holds of the system's memory, in bytes.
func used() uint64 {
	return read("/memory/classes/total:bytes") - read("/memory/classes/heap/released:bytes")
}

func read(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

// watch compares use with the limit, and counts connections, until ctx is done.
func (p *Pacer) watch(ctx context.Context) {
	count := time.NewTicker(reclaimEvery)
	defer count.Stop()
	var check <-chan time.Time // never, without a limit
	if p.limit > 0 {
		t := time.NewTicker(checkEvery)
		defer t.Stop()
		check = t.C
	}
	r := reclaimer{open: p.users.Connections, free: debug.FreeOSMemory}
	s := shedder{limit: p.limit, used: used, free: debug.FreeOSMemory, shed: p.users.Shed, now: time.Now}
	on := false
	for {
		select {
		case <-check:
			if now := pressed(on, used(), p.limit); now != on {
				on = now
				p.users.Pressure(on)
			}
			s.check(on)
		case <-count.C:
			r.count()
		case <-ctx.Done():
			return
		}
	}
}

// pressed reports whether there is pressure, after there was or not.
func pressed(was bool, used uint64, limit int64) bool {
	percent := float64(used) / float64(limit) * 100
	if was {
		return percent > low
	}
	return percent >= high
}

// groupLimit is the least limit of the control group that list names, or of one above
// it, under root (version 2); 0 if there is none.
func groupLimit(list, root string) int64 {
	b, err := os.ReadFile(list)
	if err != nil {
		return 0
	}
	group, ok := "", false
	for line := range strings.Lines(string(b)) {
		if group, ok = strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			break
		}
	}
	if !ok {
		return 0
	}
	least := int64(math.MaxInt64)
	for dir := filepath.Clean("/" + group); ; dir = filepath.Dir(dir) {
		if text, err := os.ReadFile(filepath.Join(root, dir, "memory.max")); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if dir == "/" {
			break
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}
