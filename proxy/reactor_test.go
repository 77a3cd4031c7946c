package proxy

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// onLoop runs f on the rig's loop with the one flow that is open, nil if none is.
func (r *rig) onLoop(f func(open *reactorFlow)) {
	r.t.Helper()
	done := make(chan struct{})
	var task loop.Task
	task.Init(loop.RunnerFunc(func() {
		defer close(done)
		open := r.re.flows.next
		if open == &r.re.flows {
			open = nil
		}
		f(open)
	}))
	r.re.loop.Post(&task)
	await(r.t, "the loop", done)
}

// age makes the open flow's past so much longer, and lets its timer fire. It
// reports whether the flow lived on.
func (r *rig) age(by time.Duration) (alive bool) {
	r.t.Helper()
	r.onLoop(func(f *reactorFlow) { f.start -= by })
	return r.expire()
}

func (r *rig) expire() (alive bool) {
	r.t.Helper()
	r.onLoop(func(f *reactorFlow) {
		f.Expire()
		alive = f.state == flowOpen
	})
	return alive
}

// TestReactorTimer: a byte either way keeps a flow, and the timer of one that is
// half-closed is the drain's.
func TestReactorTimer(t *testing.T) {
	o := Options{IdleTimeout: time.Hour, DrainTimeout: time.Minute}
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		r := newRig(t, onLoop, id, o)
		t.Run("idle", func(t *testing.T) {
			r.t = t
			j := r.join()
			await(t, "the loop to take it", j.served)
			if !r.expire() || !r.age(59*time.Minute) {
				t.Error("it ended too soon")
			}
			for _, ends := range [][2]io.ReadWriter{{j.client, j.up}, {j.up, j.client}} {
				r.onLoop(func(f *reactorFlow) { f.start -= time.Hour })
				pass(t, ends[0], ends[1])
				if !r.expire() {
					t.Fatal("a byte did not count")
				}
			}
			if r.age(time.Hour) {
				t.Error("an idle flow lived on")
			}
			j.ended(flow.ReasonIdle)
		})
		t.Run("half-closed", func(t *testing.T) {
			r.t = t
			j := r.join()
			await(t, "the loop to take it", j.served)
			r.onLoop(func(f *reactorFlow) { f.start -= 59 * time.Minute })
			if err := j.client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			receive(t, "upstream", j.up, nil)
			if !r.expire() || !r.age(59*time.Second) {
				t.Error("it ended too soon")
			}
			pass(t, j.up, j.client)
			if !r.expire() {
				t.Error("a byte did not count")
			}
			if r.age(time.Minute) {
				t.Error("a silent half-closed flow lived on")
			}
			j.ended(flow.ReasonDrain)
		})
	})
}

// pass moves one byte.
func pass(t *testing.T, from io.Writer, to io.Reader) {
	t.Helper()
	if _, err := from.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestReactorEnds: flows that are open when the handler stops are reset, and one that
// comes after is refused.
func TestReactorEnds(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		r := newRig(t, onLoop, id, Options{})
		var open []*joined
		for range 3 {
			j := r.join()
			await(t, "the loop to take it", j.served)
			open = append(open, j)
		}
		if err := r.h.Run(canceled()); err != nil {
			t.Error(err)
		}
		check := func(j *joined) {
			j.ended(flow.ReasonShutdown)
			wantReset(t, "client", j.client)
			wantReset(t, "upstream", j.up)
		}
		for _, j := range open {
			check(j)
		}
		late := newRequest(t, r.id, nil)
		r.handle(late)
		if a := await(t, "an answer to the SYN", late.answered); a != "refuse" {
			t.Errorf("one that came after got %s, want refuse", a)
		}
		<-r.records
	})
}

// TestGatherWriter gathers, keeps what does not fit, and remembers the first error:
// the kernel tells a reset once and then talks of EPIPE.
func TestGatherWriter(t *testing.T) {
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(id.Destination))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		u, err := newDialer().connect(t.Context(), ln.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		defer u.f.Close()
		up, err := ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		_ = u.control(func(fd int) error {
			checkGather(t, uintptr(fd), up)
			return nil
		})
	})
}

func checkGather(t *testing.T, fd uintptr, up *net.TCPConn) {
	t.Helper()
	var w gatherWriter
	w.begin(fd, []byte("left "))
	for _, s := range []string{"short ", "slices"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if n := unreadBy(t, up); n != 0 {
		t.Errorf("%d bytes were sent before flush", n)
	}
	long := bytesOf(1, gatherMin)
	if n, err := w.Write(long); n != len(long) || err != nil {
		t.Fatal(n, err)
	}
	want := append([]byte("left short slices"), long...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(up, got); err != nil || firstDifference(got, want) != len(want) {
		t.Errorf("%v; differs from byte %d on", err, firstDifference(got, want))
	}
	// A socket that takes a part: the rest stays.
	total := 0
	for !w.full {
		n, err := w.Write(long)
		if total += n; err != nil && !errors.Is(err, errStop) {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("kept")); err != nil || string(w.buf) != "kept" || w.flush() {
		t.Errorf("kept %q, %v", w.buf, err)
	}
	reset(up)
	w.begin(fd, w.buf)
	eventually(t, "the reset", func() bool { w.full = false; return !w.flush() && w.err != 0 })
	if w.flush() || !errors.Is(w.err, unix.ECONNRESET) {
		t.Errorf("a second flush turned the reset into %v", w.err)
	}
}

// TestManyFlows relays and echoes many flows at once, each its own bytes, with
// windows so small that everything is held back again and again in memory that the
// flows share.
func TestManyFlows(t *testing.T) {
	const many, size = 12, 300_000
	check := func(t *testing.T, i int, client *memConn, up halfCloser) {
		t.Helper()
		client.setWindow(1000 + i)
		c := flow.NewNetConn(client)
		toUp, toClient := bytesOf(uint64(i), size), bytesOf(uint64(100+i), size)
		if up == nil { // an echo
			toClient = toUp
			up = c
		}
		var wg sync.WaitGroup
		wg.Go(func() { send(t, c, toUp) })
		if up != halfCloser(c) {
			wg.Go(func() { send(t, up, toClient) })
			wg.Go(func() { receive(t, "upstream", up, toUp) })
		}
		wg.Go(func() { receive(t, "client", c, toClient) })
		wg.Wait()
	}
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
				r := newSmallRig(t, e, id)
				var wg sync.WaitGroup
				for i := range many {
					r.chaos = rand.New(rand.NewPCG(uint64(i), 0))
					j := r.join()
					wg.Go(func() { check(t, i, j.end, j.up) })
				}
				wg.Wait()
			})
		})
	}
	t.Run("echo", func(t *testing.T) {
		forEngines(t, func(t *testing.T, on engine, id flow.ID) {
			h := echoOn(t, on, Options{}, nil)
			var wg sync.WaitGroup
			for i := range many {
				client, served := pipe(t, id, nil)
				wg.Go(func() { h.HandleTCP(t.Context(), newRequest(t, id, served)) })
				wg.Go(func() { check(t, i, client, nil) })
			}
			wg.Wait()
		})
	})
}

// TestFlowSize: there is one for each of a million connections, and Go's next size of
// memory is 32 bytes more.
func TestFlowSize(t *testing.T) {
	if n := reflect.TypeFor[reactorFlow]().Size(); n > 256 {
		t.Errorf("%d bytes, want 256 at most", n)
	}
}
