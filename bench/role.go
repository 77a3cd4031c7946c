package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// roleOptions are the flags of a role.
type roleOptions struct {
	addr    string
	conns   int
	span    time.Duration
	as      string
	load    string
	profile string
	cpu     int
}

func (r *roleOptions) register(fs *flag.FlagSet) {
	fs.StringVar(&r.addr, "addr", "", "role: address of the server")
	fs.IntVar(&r.conns, "conns", 1, "role: connections at once")
	fs.DurationVar(&r.span, "for", 3*time.Second, "role: how long")
	fs.StringVar(&r.as, "as", "", "role: which stack to be")
	fs.StringVar(&r.load, "load", "", "role: what to read")
	fs.IntVar(&r.cpu, "cpu", -1, "role: the processor to run on; -1 is any")
	fs.StringVar(&r.profile, "profile", "", "role: file for a CPU profile")
}

// roleResult is what a client prints.
type roleResult struct {
	Rate   float64 // per second
	Failed int
	P50us  float64
	P99us  float64
	Bits   float64 // per second
	Bytes  float64 // since the start
}

// run is the program inside a namespace.
func (r *roleOptions) run(role string) error {
	if role == "sink" {
		return runSink(r.as, r.profile)
	}
	// Every thread makes raw blocking system calls, so each needs a P of its
	// own, and nothing may stop the world.
	if err := pin(r.cpu); err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(r.conns + 4)
	var res any
	var err error
	if role == "drain" {
		res, err = drain(r.load, r.span)
	} else {
		res, err = r.measure(role)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// pin keeps every thread of this process on one processor, and so the threads they
// will start.
func pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return fmt.Errorf("processor %d: %w", cpu, err)
		}
	}
	return nil
}

// measure is a role that prints what it measured, if it ends.
func (r *roleOptions) measure(role string) (res roleResult, err error) {
	addr, err := netip.ParseAddr(r.addr)
	if err != nil {
		return res, err
	}
	switch role {
	case "server":
		return res, serve(addr)
	case "rr":
		if r.conns == 1 {
			return pingPong(addr, r.span)
		}
		return manyPingPong(addr, r.conns, r.span)
	case "crr":
		return connectLoop(addr, r.conns, r.span)
	case "idle":
		return res, holdIdle(addr, r.conns)
	case "blast":
		return res, blast(addr, r.span)
	case "push", "pull":
		return runStreams(addr, r.conns, role == "push", r.span)
	}
	return res, fmt.Errorf("no role %q", role)
}

// replyTimeout is when a missing reply counts as a stall.
const replyTimeout = 2 * time.Second

// dial opens a blocking connection with timeouts on its calls.
func dial(addr netip.Addr, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(int64(replyTimeout))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
	if err == nil {
		err = connect(fd, addr.As4(), port)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// pingPong exchanges bytes on one connection and keeps every time taken.
func pingPong(addr netip.Addr, span time.Duration) (roleResult, error) {
	runtime.LockOSThread()
	fd, err := dial(addr, firstPort)
	if err != nil {
		return roleResult{}, err
	}
	defer unix.Close(fd)
	const warm = 100
	times := make([]time.Duration, 0, 1<<18)
	var b [1]byte
	start := time.Now()
	last := start
	for i := 0; last.Sub(start) < span; i++ {
		if err := exchange(fd, b[:]); err != nil {
			return roleResult{}, fmt.Errorf("exchange %d: %w", i, err)
		}
		now := time.Now()
		if i >= warm {
			times = append(times, now.Sub(last))
		}
		last = now
	}
	slices.Sort(times)
	if len(times) == 0 {
		return roleResult{}, errors.New("no exchange within the time")
	}
	us := func(q int) float64 { return float64(times[len(times)*q/100].Nanoseconds()) / 1e3 }
	return roleResult{Rate: float64(len(times)) / span.Seconds(), P50us: us(50), P99us: us(99)}, nil
}

// manyPingPong keeps one byte under way on each of n connections from one thread.
// They end with the process.
func manyPingPong(addr netip.Addr, n int, span time.Duration) (roleResult, error) {
	runtime.LockOSThread()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return roleResult{}, err
	}
	b := []byte{1}
	for i := range n {
		fd, err := dial(addr, firstPort+i%serverPorts)
		if err != nil {
			return roleResult{}, err
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return roleResult{}, err
		}
		if _, err := write(fd, b); err != nil {
			return roleResult{}, err
		}
	}
	events := make([]unix.EpollEvent, n)
	start, count := time.Now(), 0
	for time.Since(start) < span {
		k, err := wait(ep, events, replyTimeout)
		if err != nil {
			return roleResult{}, err
		}
		if k == 0 {
			return roleResult{}, fmt.Errorf("no reply for %v after %d exchanges", replyTimeout, count)
		}
		for _, e := range events[:k] {
			if err := turn(int(e.Fd), b); err != nil {
				return roleResult{}, err
			}
			count++
		}
	}
	return roleResult{Rate: float64(count) / time.Since(start).Seconds()}, nil
}

// turn takes a reply and sends the next byte.
func turn(fd int, b []byte) error {
	if k, err := read(fd, b); err != nil || k == 0 {
		return fmt.Errorf("read: %d, %w", k, err)
	}
	_, err := write(fd, b)
	return err
}

// exchange sends a byte and waits for its echo.
func exchange(fd int, b []byte) error {
	if _, err := write(fd, b); err != nil {
		return err
	}
	n, err := read(fd, b)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// connectLoop opens, exchanges one byte and closes, from n threads.
func connectLoop(addr netip.Addr, n int, span time.Duration) (roleResult, error) {
	var (
		mu    sync.Mutex
		total roleResult
		done  int
		first error
		wg    sync.WaitGroup
	)
	start := time.Now()
	for w := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			ok, failed, err := connectWorker(addr, w, start, span)
			mu.Lock()
			defer mu.Unlock()
			done, total.Failed = done+ok, total.Failed+failed
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	total.Rate = float64(done) / time.Since(start).Seconds()
	if done == 0 {
		return total, fmt.Errorf("no connection of %d succeeded: %w", total.Failed, first)
	}
	return total, nil
}

// connectWorker is one thread of connectLoop; err is its first failure.
func connectWorker(addr netip.Addr, w int, start time.Time, span time.Duration) (ok, failed int, err error) {
	var b [1]byte
	for i := w; time.Since(start) < span; i++ {
		fd, derr := dial(addr, firstPort+i%serverPorts)
		if derr == nil {
			derr = exchange(fd, b[:])
			_ = unix.Close(fd)
		}
		if derr == nil {
			ok++
			continue
		}
		failed++
		if err == nil {
			err = derr
		}
	}
	return ok, failed, err
}

// holdIdle opens n connections, proves each with one byte, says so, and keeps them
// until its input ends.
func holdIdle(addr netip.Addr, n int) error {
	var b [1]byte
	for i := range n {
		fd, err := dial(addr, firstPort+i%serverPorts)
		if err == nil {
			err = exchange(fd, b[:])
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	fmt.Println("open", n)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
