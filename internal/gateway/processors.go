package gateway

import (
	"os"
	"runtime"
	"sync"
)

const (
	// heapOfOne is how much may be alive, in bytes, while Go has one processor of
	// two, and heapOfTwo from when on it has both: the collector then has work for
	// one of its own.
	heapOfOne = 64 << 20
	heapOfTwo = 96 << 20
)

// processors lets Go use one processor of two while there is little to collect
// (docs/adr/0024). Everything hot runs on the loop and, handed over, right behind it.
// With a second processor of Go's idle, each such hand-over wakes it: its thread takes
// the work to a cache that has none of the data, or comes too late and has only cost
// the kernel's time, and the clients theirs.
type processors struct {
	mu  sync.Mutex
	was int // GOMAXPROCS before; 0 is not ours to set
}

// begin takes the one. It does nothing on other machines, and where GOMAXPROCS is set.
func (p *processors) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, set := os.LookupEnv("GOMAXPROCS"); set || runtime.GOMAXPROCS(0) != 2 {
		return
	}
	p.was = runtime.GOMAXPROCS(1)
}

// alive is told how much is, after each collection.
func (p *processors) alive(bytes uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := runtime.GOMAXPROCS(0)
	switch {
	case p.was == 0:
		return
	case bytes >= heapOfTwo:
		want = p.was
	case bytes <= heapOfOne:
		want = 1
	}
	if want != runtime.GOMAXPROCS(0) { // to set it stops the world
		runtime.GOMAXPROCS(want)
	}
}

// end gives back what begin took.
func (p *processors) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.was != 0 {
		runtime.GOMAXPROCS(p.was)
		p.was = 0
	}
}
