package epollbridge_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// The tests in this file are named for what a reader of waiter.Waitable would not
// expect of a gVisor endpoint. Each shows the trap first, then that a Poller does
// not fall into it.

// everything is what a connection in a final state is ready for.
const everything = in | out | rdhup | errs | hup

// notifications records what a queue notifies of.
type notifications struct {
	entry waiter.Entry
	seen  atomic.Uint64 // waiter.EventMask, all that were notified
	count atomic.Int32
	hook  func()
}

func (n *notifications) NotifyEvent(mask waiter.EventMask) {
	n.seen.Or(uint64(mask))
	n.count.Add(1)
	if n.hook != nil {
		n.hook()
	}
}

// eavesdrop records what s notifies of, among events.
func eavesdrop(s *socket, events waiter.EventMask, hook func()) *notifications {
	n := &notifications{hook: hook}
	n.entry.Init(n, events)
	s.source.Queue.EventRegister(&n.entry)
	return n
}

// TestTrapRdHupVisibleOnlyInReadiness: the peer's FIN is notified as In, so that
// who waits for RdHup alone would sleep for ever.
func TestTrapRdHupVisibleOnlyInReadiness(t *testing.T) {
	for _, mode := range []epollbridge.Events{0, edge, once} {
		t.Run(mode.String(), func(t *testing.T) {
			l, p := newLab(t), newPoller(t)
			client, server := l.connection(t)
			spy := eavesdrop(server, waiter.AllEvents, nil)
			server.watch(t, p, rdhup|mode, 1)
			expect(t, p)
			waiting := waitIn(p, -1)
			must(client.ep.Shutdown(tcpip.ShutdownWrite))
			if r := await(t, "RDHUP", waiting); r.err != nil || r.events[0] != event(rdhup, 1) {
				t.Errorf("got %v, want RDHUP", r)
			}
			if seen := waiter.EventMask(spy.seen.Load()); seen&waiter.EventRdHUp != 0 || seen&waiter.EventIn == 0 {
				t.Errorf("gVisor notifies of %#x: the trap is gone", seen)
			}
		})
	}
}

// TestTrapRdHupAskedForWithIn: Readiness looks for the peer's FIN only if it is
// asked for In as well; else it may answer before the stack took note of the FIN.
func TestTrapRdHupAskedForWithIn(t *testing.T) {
	p := newPoller(t)
	var asked waiter.EventMask
	o := &asker{ask: func(mask waiter.EventMask) waiter.EventMask {
		asked = mask
		if mask&waiter.EventIn == 0 {
			return 0
		}
		return waiter.EventIn | waiter.EventRdHUp
	}}
	var r epollbridge.Registration
	if err := p.Add(&r, o, rdhup, 7); err != nil {
		t.Fatal(err)
	}
	expect(t, p, event(rdhup, 7))
	if asked&waiter.EventIn == 0 {
		t.Errorf("asked for %#x, without In", asked)
	}
}

// asker is a Waitable that never notifies.
type asker struct {
	waiter.NeverReady
	ask func(waiter.EventMask) waiter.EventMask
}

func (a *asker) Readiness(mask waiter.EventMask) waiter.EventMask { return a.ask(mask) }

// TestTrapOutNotifiedOnceAtHalfTheBuffer: a full send buffer counts as writable
// from the first byte that is free, but is notified once, when it is half empty.
func TestTrapOutNotifiedOnceAtHalfTheBuffer(t *testing.T) {
	for _, mode := range []epollbridge.Events{0, edge, once} {
		t.Run(mode.String(), func(t *testing.T) {
			l, p := newLab(t), newPoller(t)
			client, server := l.connection(t)
			l.fill(client)
			client.watch(t, p, out|mode, 1)
			spy := eavesdrop(client, waiter.EventOut, nil)
			expect(t, p)
			silent := 0 // times that it was writable and nobody was told
			for spy.count.Load() == 0 {
				if n, err := server.read(4 << 10); n == 0 {
					t.Fatalf("all was read, and nothing was notified: %v", err)
				}
				l.settle()
				if client.ready(waiter.EventOut) && spy.count.Load() == 0 {
					expect(t, p)
					silent++
				}
			}
			if silent == 0 {
				t.Error("notified at the first free byte: the trap is gone")
			}
			expect(t, p, event(out, 1))
			l.drain(server)
			if n := spy.count.Load(); n != 1 {
				t.Errorf("notified %d times", n)
			}
			if mode == 0 {
				expect(t, p, event(out, 1))
			} else {
				expect(t, p)
			}
		})
	}
}

// TestTrapCallbackUnderTheEndpointsLock: the callback runs while the endpoint is
// locked, and others ask for readiness at that moment. All of a Poller's calls,
// from many goroutines, must get along with that.
func TestTrapCallbackUnderTheEndpointsLock(t *testing.T) {
	l, p := newLab(t), newPoller(t)
	client, server := l.connection(t)
	var locked atomic.Int32
	spy := eavesdrop(server, waiter.EventIn, func() {
		if ep := server.ep.(*tcp.Endpoint); ep.TryLock() {
			ep.ResumeWork()
		} else {
			locked.Add(1)
		}
	})
	var others [2]epollbridge.Registration
	stop := make(chan struct{})
	done := make(chan error, len(others))
	for i := range others {
		go func() {
			done <- func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
						runtime.Gosched()
					}
					if err := p.Add(&others[i], &server.source, in|out|rdhup, 0); err != nil {
						return fmt.Errorf("Add: %w", err)
					}
					if err := p.Modify(&others[i], in|edge, 0); err != nil {
						return fmt.Errorf("Modify: %w", err)
					}
					if _, err := p.Wait(make([]epollbridge.Event, 2), 0); err != nil {
						return fmt.Errorf("Wait: %w", err)
					}
					if err := p.Delete(&others[i]); err != nil {
						return fmt.Errorf("Delete: %w", err)
					}
				}
			}()
		}()
	}
	for range 100 {
		if _, err := client.write(100); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 100; {
			n, _ := server.read(100)
			got += n
			runtime.Gosched()
		}
	}
	close(stop)
	for range others {
		if err := await(t, "worker", done); err != nil {
			t.Error(err)
		}
	}
	if spy.count.Load() > 0 && locked.Load() == 0 {
		t.Error("the endpoint was never locked in a callback: the trap is gone")
	}
}

// TestTrapCallbackInsideOnesOwnCall: Shutdown, Abort and Close notify before they
// return, in the goroutine that called them.
func TestTrapCallbackInsideOnesOwnCall(t *testing.T) {
	for name, call := range map[string]func(*socket){
		"shutdown": func(s *socket) { must(s.ep.Shutdown(tcpip.ShutdownWrite)) },
		"abort":    func(s *socket) { s.ep.Abort() },
		"close":    func(s *socket) { s.ep.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l, p := newLab(t), newPoller(t)
			client, _ := l.connection(t)
			client.watch(t, p, in|out|edge, 1)
			expect(t, p, event(out, 1))
			var inside atomic.Bool // a callback ran in this goroutine
			eavesdrop(client, waiter.AllEvents, func() {
				stack := make([]byte, 8<<10)
				stack = stack[:runtime.Stack(stack, false)]
				if strings.Contains(string(stack), "TestTrapCallbackInsideOnesOwnCall") {
					inside.Store(true)
				}
			})
			call(client)
			if !inside.Load() {
				t.Error("nothing was notified within the call: the trap is gone")
			}
			if got := look(t, p); len(got) != 1 {
				t.Errorf("events %v, want one", got)
			}
			if err := p.Delete(&client.reg); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTrapErrorReturnedOnce: the first read after a reset returns why, later ones
// an end of stream. The readiness stays, so a level-triggered registration goes on
// to report until it is deleted.
func TestTrapErrorReturnedOnce(t *testing.T) {
	l, p := newLab(t), newPoller(t)
	client, server := l.connection(t)
	server.watch(t, p, in|out|rdhup, 1)
	client.ep.Abort()
	l.settle()
	expect(t, p, event(everything, 1))
	if _, err := server.read(1); fmt.Sprintf("%T", err) != "*tcpip.ErrConnectionReset" {
		t.Errorf("first read after a reset: %v", err)
	}
	if _, err := server.read(1); fmt.Sprintf("%T", err) != "*tcpip.ErrClosedForReceive" {
		t.Errorf("second read after a reset: %v: the trap is gone", err)
	}
	expect(t, p, event(everything, 1))
}

// TestTrapDataBeforeAdd: what arrived before Add was notified to nobody.
func TestTrapDataBeforeAdd(t *testing.T) {
	for _, mode := range []epollbridge.Events{0, edge, once, excl} {
		t.Run(mode.String(), func(t *testing.T) {
			l, p := newLab(t), newPoller(t)
			client, server := l.connection(t)
			if _, err := client.write(1); err != nil {
				t.Fatal(err)
			}
			l.settle()
			waiting := waitIn(p, -1)
			server.watch(t, p, in|mode, 1)
			if r := await(t, "IN", waiting); r.err != nil || r.events[0] != event(in, 1) {
				t.Errorf("got %v, want IN", r)
			}
		})
	}
}

// TestTrapReadinessOutsideTheMask: a reset connection answers with all it was
// asked for and an UDP endpoint with Err unasked; others are no better.
func TestTrapReadinessOutsideTheMask(t *testing.T) {
	p := newPoller(t)
	o := &object{rude: true}
	o.ready.Store(^uint64(0))
	for interest, want := range map[epollbridge.Events]epollbridge.Events{
		in:               in | errs | hup,
		out | edge:       out | errs | hup,
		rdhup | once:     rdhup | errs | hup,
		in | out | excl:  in | out | errs | hup,
		in | out | rdhup: everything,
	} {
		add(t, p, o, interest, 1)
		expect(t, p, event(want, 1))
		if err := p.Delete(&o.Registration); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTrapHupAndErrAlwaysReported: nobody asks for them, and they may come though
// nothing was asked for.
func TestTrapHupAndErrAlwaysReported(t *testing.T) {
	for _, mode := range []epollbridge.Events{0, edge, once, excl} {
		t.Run(mode.String(), func(t *testing.T) {
			l, p := newLab(t), newPoller(t)
			client, server := l.connection(t)
			server.watch(t, p, mode, 1)
			expect(t, p)
			waiting := waitIn(p, -1)
			client.ep.Abort()
			if r := await(t, "HUP", waiting); r.err != nil || r.events[0] != event(errs|hup, 1) {
				t.Errorf("got %v, want ERR|HUP", r)
			}
		})
	}
}

// TestTrapFinalStateReportsErr: a connection that ended in order reports Err, too.
// Only a read tells.
func TestTrapFinalStateReportsErr(t *testing.T) {
	l, p := newLab(t), newPoller(t)
	client, server := l.connection(t)
	server.watch(t, p, in|out|rdhup, 1)
	must(client.ep.Shutdown(tcpip.ShutdownWrite))
	l.settle()
	expect(t, p, event(in|out|rdhup, 1))
	must(server.ep.Shutdown(tcpip.ShutdownWrite))
	l.settle()
	expect(t, p, event(everything, 1))
	if _, err := server.read(1); fmt.Sprintf("%T", err) != "*tcpip.ErrClosedForReceive" {
		t.Errorf("read after both FINs: %v, want the end of the stream", err)
	}
}

// TestListener watches a listening endpoint.
func TestListener(t *testing.T) {
	l, p := newLab(t), newPoller(t)
	listener, addr := l.listen()
	defer listener.ep.Close()
	listener.watch(t, p, in, 1)
	waiting := waitIn(p, -1)
	client := l.dial(addr)
	defer client.ep.Abort()
	if r := await(t, "a connection", waiting); r.err != nil || r.events[0] != event(in, 1) {
		t.Fatalf("got %v, want IN", r)
	}
	server := listener.accept()
	defer server.ep.Abort()
	expect(t, p)
}

// TestUDP watches UDP endpoints: datagrams, and the ICMP error that a closed port
// answers with.
func TestUDP(t *testing.T) {
	l, p := newLab(t), newPoller(t)
	client, server := endpoint(l.client, 17), endpoint(l.server, 17)
	must(server.ep.Bind(tcpip.FullAddress{Port: 53}))
	must(client.ep.Connect(tcpip.FullAddress{NIC: 1, Addr: serverAddr, Port: 53}))
	server.watch(t, p, in, 1)
	client.watch(t, p, edge, 2)
	defer client.ep.Close()
	waiting := waitIn(p, -1)
	if _, err := client.write(3); err != nil {
		t.Fatal(err)
	}
	if r := await(t, "a datagram", waiting); r.err != nil || r.events[0] != event(in, 1) {
		t.Fatalf("got %v, want IN", r)
	}
	if n, err := server.read(100); n != 3 || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}
	expect(t, p)
	if err := p.Delete(&server.reg); err != nil {
		t.Fatal(err)
	}
	server.ep.Close()
	waiting = waitIn(p, patience)
	if _, err := client.write(3); err != nil {
		t.Fatal(err)
	}
	if r := await(t, "port unreachable", waiting); r.err != nil || len(r.events) != 1 || r.events[0] != event(errs, 2) {
		t.Errorf("got %v, want ERR", r)
	}
}
