package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// perProcess is how many sockets one process of clients has, below RLIMIT_NOFILE.
const perProcess = 18_000

// fleet is all processes of clients.
type fleet struct {
	ns      *testutil.Namespace
	self    string
	workers []*worker
	open    atomic.Int64 // connections that stand
	opened  atomic.Int64 // since the last time it was set to 0
}

// worker is one process of clients.
type worker struct {
	proc  *testutil.Process
	in    io.WriteCloser
	news  chan news
	fleet *fleet
	last  news // of the order under way; its Lost is the process's
}

// tally is what an order came to, over all processes.
type tally struct {
	done, failed, lost int
	slow, took         time.Duration
	firstErr           string
}

// add starts a process with n connections, the first of which has number first.
func (f *fleet) add(n, first int) error {
	cmd := exec.Command(f.self, "-role", "clients", "-n", strconv.Itoa(n), "-first", strconv.Itoa(first))
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	w := &worker{in: in, news: make(chan news, 1), fleet: f}
	r, pw := io.Pipe()
	cmd.Stdout = pw
	if w.proc, err = f.ns.Start(cmd); err != nil {
		return err
	}
	go func() {
		<-w.proc.Done()
		pw.Close()
	}()
	go w.read(r)
	f.workers = append(f.workers, w)
	return nil
}

// read takes what the process says until it ends.
func (w *worker) read(r io.Reader) {
	defer close(w.news)
	d := json.NewDecoder(r)
	for {
		var n news
		if d.Decode(&n) != nil {
			return
		}
		w.note(n)
		if n.End {
			w.news <- n
		}
	}
}

// note keeps count of the connections that stand.
func (w *worker) note(n news) {
	change := n.Done
	if n.Op == w.last.Op {
		change -= w.last.Done
	}
	lost := n.Lost - w.last.Lost
	switch n.Op {
	case "open":
		w.fleet.opened.Add(int64(change))
	case "ping":
		change = 0
	default:
		change = -change
	}
	w.fleet.open.Add(int64(change - lost))
	if w.last = n; n.End {
		w.last = news{Lost: n.Lost}
	}
}

// do gives one process an order and waits until it is done.
func (w *worker) do(o order, timeout time.Duration) (news, error) {
	b, err := json.Marshal(o)
	if err == nil {
		_, err = w.in.Write(append(b, '\n'))
	}
	if err != nil {
		return news{}, fmt.Errorf("clients %d: %w: %s", w.proc.PID, err, w.proc.Stderr)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case n, ok := <-w.news:
		if !ok {
			return n, fmt.Errorf("clients %d ended: %s", w.proc.PID, w.proc.Stderr)
		}
		return n, nil
	case <-t.C:
		return news{}, fmt.Errorf("clients %d: %s not done after %v", w.proc.PID, o.Op, timeout)
	}
}

// all gives every process an order, to no more than abreast of them at once.
func (f *fleet) all(o order, abreast int, timeout time.Duration) (tally, error) {
	var (
		mu   sync.Mutex
		sum  tally
		errs []error
		wg   sync.WaitGroup
		slot = make(chan struct{}, abreast)
	)
	start := time.Now()
	for _, w := range f.workers {
		slot <- struct{}{}
		wg.Go(func() {
			n, err := w.do(o, timeout)
			<-slot
			mu.Lock()
			defer mu.Unlock()
			sum.done, sum.failed, sum.lost = sum.done+n.Done, sum.failed+n.Failed, sum.lost+n.Lost
			sum.slow = max(sum.slow, n.Slow)
			if sum.firstErr == "" {
				sum.firstErr = n.Err
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	sum.took = time.Since(start)
	return sum, errors.Join(errs...)
}

// close ends all processes.
func (f *fleet) close() {
	for _, w := range f.workers {
		w.proc.Kill()
	}
}
