package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/internal/testutil/wait"
	"github.com/tungate/tungate/loop"
)

// TestUDPBurst: more answers than one event takes arrive, each once and in order.
func TestUDPBurst(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		const burst = 5*receiveBatch + 3
		r := newUDPRig(t, e, id, Options{})
		to := r.exchange(r.id, "x")
		release := r.hold()
		for i := range burst {
			if _, err := r.peer.WriteToUDPAddrPort(strconv.AppendInt(nil, int64(i), 10), to); err != nil {
				t.Fatal(err)
			}
		}
		release()
		for i := range burst {
			if got := await(t, "an answer", r.w.got); string(got.payload) != strconv.Itoa(i) {
				t.Fatalf("answer %d is %q", i, got.payload)
			}
		}
	})
}

// TestUDPFair: a session whose socket never runs dry leaves the others their turn.
func TestUDPFair(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		w := &flooded{more: make(chan struct{}, 1), again: r.peer}
		if !r.d.HandleDatagram(w, r.flow(1), []byte("x")) {
			t.Fatal("nobody is there")
		}
		_, to := r.peer.receive(t)
		w.to.Store(&to)
		for range 100 {
			if _, err := r.peer.WriteToUDPAddrPort([]byte("flood"), to); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "the flood", w.more)
		for range 100 {
			from := r.exchange(r.flow(2), "question")
			if _, err := r.peer.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			await(t, "the answer beside a flood", r.w.got)
		}
		await(t, "the flood to go on", w.more)
	})
}

// TestUDPGoroutines: sessions have none of their own.
func TestUDPGoroutines(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		r.exchange(r.flow(1), "x")
		r.onLoop(func() {})
		before := runtime.NumGoroutine()
		for port := range uint16(200) {
			r.exchange(r.flow(2+port), "x")
		}
		r.onLoop(func() {})
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines with 201 sessions, %d with one", n, before)
		}
	})
}

// TestUDPEvictedBeforeItBegan: a session that makes room before the loop has seen
// it is closed and recorded once.
func TestUDPEvictedBeforeItBegan(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{UDP: UDPOptions{MaxSessions: 1}})
		r.exchange(r.flow(1), "x")
		release := r.hold()
		for port := range uint16(3) {
			r.exchange(r.flow(2+port), "x")
		}
		release()
		for port := range uint16(3) {
			r.wantEnd(1+port, flow.ReasonEvicted)
		}
		r.wantOpen(4)
		r.onLoop(func() {})
		if s := r.d.Stats(); s.UDP.Open != 1 || s.UDP.Opened != 4 || s.UDPSessionLimit != 3 || len(r.records) != 0 {
			t.Errorf("counted %+v, %d records too many", s, len(r.records))
		}
	})
}

// BenchmarkUDP is one datagram to an upstream process and its answer back. Clients'
// datagrams come on the loop, as they do from a device.
func BenchmarkUDP(b *testing.B) {
	for _, size := range []int{64, 1400} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			id := flows(flow.UDP)["ipv4"]
			id.Destination = echoProcess(b)
			l := startLoop(b)
			h, err := NewOnLoop(Options{Allow: []Class{ClassLoopback}}, l, nil)
			if err != nil {
				b.Fatal(err)
			}
			wait.Background(b, h.Run)
			w := &pingPong{h: h, loop: l, id: id, payload: make([]byte, size), left: b.N, done: make(chan struct{})}
			w.task.Init(w)
			b.SetBytes(int64(size))
			b.ResetTimer()
			l.Post(&w.task)
			<-w.done
		})
	}
}

// pingPong is a client that answers every datagram with the next.
type pingPong struct {
	h       Handler
	loop    *loop.Loop
	task    loop.Task
	id      flow.ID
	payload []byte
	left    int
	done    chan struct{}
}

func (p *pingPong) RunTask() { p.h.HandleDatagram(p, p.id, p.payload) }

func (p *pingPong) WriteDatagram(flow.ID, netip.AddrPort, []byte) error {
	if p.left--; p.left > 0 {
		p.loop.Post(&p.task)
	} else {
		close(p.done)
	}
	return nil
}

func (p *pingPong) RejectDatagram(flow.ID) {}

// echoProcess starts a child that answers datagrams, and returns its address.
func echoProcess(b *testing.B) netip.AddrPort {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childJob+"=echo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}

// echoForever is the child's part.
func echoForever() error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, c.LocalAddr()); err != nil {
		return err
	}
	(&peer{UDPConn: c}).echo()
	return nil
}
