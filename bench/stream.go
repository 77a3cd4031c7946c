package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// streamBytes is what a client writes or reads with one system call, as iperf3 does.
const streamBytes = 128 << 10

// streamFlow is one connection of a bulk client.
type streamFlow struct {
	fd    int
	send  bool
	moved atomic.Int64 // written to the socket, or read from it
}

// runStreams writes or reads on n connections, each from a thread of its own, and
// measures for span what arrived.
func runStreams(addr netip.Addr, n int, send bool, span time.Duration) (res roleResult, err error) {
	port := sourcePort
	if send {
		port = sinkPort
	}
	flows := make([]*streamFlow, n)
	failed := make(chan error, n)
	for i := range flows {
		fd, err := dial(addr, port)
		if err != nil {
			return res, fmt.Errorf("connection %d: %w", i, err)
		}
		flows[i] = &streamFlow{fd: fd, send: send}
		go func() { failed <- flows[i].run() }()
	}
	time.Sleep(warm)
	start, before, err := arrived(flows)
	if err != nil {
		return res, err
	}
	select {
	case <-time.After(span):
	case err := <-failed:
		return res, err
	}
	end, after, err := arrived(flows)
	if err != nil {
		return res, err
	}
	res.Bits = float64(after-before) * 8 / end.Sub(start).Seconds()
	res.Bytes = float64(after)
	return res, nil
}

// run moves bytes until the process ends.
func (f *streamFlow) run() error {
	runtime.LockOSThread()
	buf := make([]byte, streamBytes)
	call := read
	if f.send {
		call = write
	}
	for {
		n, err := call(f.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no byte moved for %v after %d", replyTimeout, f.moved.Load())
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		f.moved.Add(int64(n))
	}
}

// arrived is how many bytes the flows moved until now: what the other end has not
// acknowledged yet (SIOCOUTQ, tcp(7)) does not count.
func arrived(flows []*streamFlow) (now time.Time, bytes int64, err error) {
	for _, f := range flows {
		bytes += f.moved.Load()
		if f.send {
			waiting, err := unix.IoctlGetInt(f.fd, unix.SIOCOUTQ)
			if err != nil {
				return now, 0, err
			}
			bytes -= int64(waiting)
		}
	}
	return time.Now(), bytes, nil
}
