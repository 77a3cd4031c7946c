package proxy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes another each time")

// newSeed is what a random test begins with; a failure prints it.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again with: -run '^%s$' -seed %d", t.Name(), seed)
	return seed
}

// TestRelayRandom drives connections by random schedules and holds each direction
// to one rule: what arrives is a prefix of what was sent, and all of it unless
// somebody was told of an error. Afterwards nothing may be left.
func TestRelayRandom(t *testing.T) {
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) { runSchedules(t, e) })
	}
}

func runSchedules(t *testing.T, e engine) {
	const schedules = 1000
	seed := newSeed(t)
	var rigs []*rig
	for _, id := range flows(flow.TCP) {
		rigs = append(rigs, newRig(t, e, id, Options{}), newSmallRig(t, e, id))
	}
	goroutines, files := runtime.NumGoroutine(), descriptors()
	reasons := map[flow.CloseReason]int{}
	for i := range uint64(schedules) {
		rng := rand.New(rand.NewPCG(seed, i))
		s := newSchedule(rng)
		r := rigs[rng.IntN(len(rigs))]
		r.t, r.chaos = t, rng
		reasons[runSchedule(t, r, s)]++
		if t.Failed() {
			t.Fatalf("schedule %d: %v", i, s)
		}
	}
	t.Logf("ends: %v", reasons)
	for _, r := range []flow.CloseReason{flow.ReasonDone, flow.ReasonClientReset, flow.ReasonUpstreamReset} {
		if reasons[r] == 0 {
			t.Errorf("no schedule ended by %v", r)
		}
	}
	eventually(t, "every goroutine and socket is gone", func() bool {
		return runtime.NumGoroutine() <= goroutines && descriptors() <= files
	})
}

// ending is what a side does after its last byte.
type ending string

const (
	endFIN   ending = "FIN"   // CloseWrite, and reads on
	endClose ending = "close" // Close, whatever the other side still sends
	endRST   ending = "RST"
)

// side is one side's part of a schedule.
type side struct {
	data  []byte // what it sends before its end
	end   ending
	patch int  // how much it writes at once
	late  bool // it reads only when it has sent everything
	stop  int  // it closes after reading so many bytes; negative: reads to the end
}

func (s side) String() string {
	return fmt.Sprintf("sends %d by %d, then %s; late %v, stops reading at %d", len(s.data), s.patch, s.end, s.late, s.stop)
}

// schedule is what happens on one connection.
type schedule struct {
	client, up side
	window     int // of the client
}

func (s schedule) String() string {
	return fmt.Sprintf("client %v; upstream %v; window %d", s.client, s.up, s.window)
}

func newSchedule(rng *rand.Rand) schedule {
	newSide := func() side {
		s := side{end: endFIN, stop: -1, patch: 1 + rng.IntN(50_000)}
		if rng.IntN(4) > 0 {
			s.data = bytesOf(rng.Uint64(), rng.IntN(300_000))
		}
		switch rng.IntN(8) {
		case 0:
			s.end = endClose
		case 1:
			s.end = endRST
		case 2:
			s.stop = rng.IntN(100_000)
		}
		return s
	}
	s := schedule{client: newSide(), up: newSide()}
	s.window = []int{1 + rng.IntN(1000), 1460, 65536, 1 << 20}[rng.IntN(4)]
	s.client.patch = max(s.client.patch, len(s.client.data)/1000)
	// Two sides that both refuse to read until they have sent hang without any
	// relay, so one may at most.
	switch rng.IntN(4) {
	case 0:
		s.client.late = true
	case 1:
		s.up.late = true
	}
	return s
}

// seen is how one side's part went.
type seen struct {
	wrote    int
	writeErr error
	got      []byte
	readErr  error // nil: EOF
}

// endpoint is one side as the schedule uses it.
type endpoint struct {
	halfCloser
	reset func()
}

func runSchedule(t *testing.T, r *rig, s schedule) flow.CloseReason {
	j := r.join()
	j.end.setWindow(s.window)
	var client, up seen
	var wg sync.WaitGroup
	play(&wg, s.client, endpoint{j.client, j.client.Abort}, &client)
	play(&wg, s.up, endpoint{j.up, func() { reset(j.up) }}, &up)
	wg.Wait()
	orderly := s.client.orderly() && s.up.orderly()
	if !orderly {
		j.cut() // what is left of a side that only stopped
	}
	rec := j.wait()
	check(t, "up", s.client, client, up)
	check(t, "down", s.up, up, client)
	if orderly && (rec.Reason != flow.ReasonDone || client.readErr != nil || up.readErr != nil) {
		t.Errorf("both sides ended in order, but: %v; client read %v, upstream %v", rec.Reason, client.readErr, up.readErr)
	}
	j.cut()
	return rec.Reason
}

func (s side) orderly() bool { return s.end == endFIN && s.stop < 0 }

// newSmallRig is a rig whose upstream connections hold little, so that they are
// often full. Segments must be small then, too, or each waits for a timer.
func newSmallRig(t *testing.T, e engine, id flow.ID) *rig {
	t.Helper()
	r := newRig(t, e, id, Options{})
	smallBuffers(r)
	return r
}

// smallBuffers makes the connections that r's listener accepts hold little.
func smallBuffers(r *rig) {
	r.t.Helper()
	raw, err := r.ln.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10))
	})
	if err := errors.Join(err, failed); err != nil {
		r.t.Fatal(err)
	}
}

// play starts one side's part.
func play(wg *sync.WaitGroup, s side, c endpoint, out *seen) {
	sent := make(chan struct{})
	wg.Go(func() {
		defer close(sent)
		for out.wrote < len(s.data) {
			n, err := c.Write(s.data[out.wrote:min(len(s.data), out.wrote+s.patch)])
			out.wrote += n
			if err != nil {
				out.writeErr = err
				return
			}
		}
		switch s.end {
		case endFIN:
			_ = c.CloseWrite()
		case endClose:
			_ = c.Close()
		case endRST:
			c.reset()
		}
	})
	wg.Go(func() {
		if s.late {
			<-sent
		}
		var b bytes.Buffer
		from := io.Reader(c)
		if s.stop >= 0 {
			from = io.LimitReader(c, int64(s.stop))
		}
		_, out.readErr = io.Copy(&b, from)
		out.got = b.Bytes()
		if s.stop >= 0 {
			_ = c.Close()
			out.readErr = net.ErrClosed
		}
	})
}

// check holds one direction to the rule.
func check(t *testing.T, direction string, from side, sender, receiver seen) {
	t.Helper()
	sent := from.data[:sender.wrote]
	if !bytes.HasPrefix(sent, receiver.got) {
		t.Errorf("%s: %d bytes arrived, %d were sent, and they differ from byte %d on", direction, len(receiver.got), len(sent), firstDifference(receiver.got, sent))
	}
	if receiver.readErr != nil || receiver.writeErr != nil { // the kernel tells an error once
		return
	}
	if len(receiver.got) != len(sent) {
		t.Errorf("%s: an end in order after %d of %d bytes", direction, len(receiver.got), len(sent))
	}
	if from.end == endRST && sender.writeErr == nil {
		t.Errorf("%s: a reset arrived as an end in order", direction)
	}
}
