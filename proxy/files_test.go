package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// filesServer names the server, in the environment of the child process.
const filesServer = "TUNGATE_PROXY_SERVER"

// TestFilesShort lets a process with few descriptors meet many more connects than
// it can serve: the rest is refused, what is open goes on, the rest of the process
// keeps some, and later it serves again by itself.
func TestFilesShort(t *testing.T) {
	if server := os.Getenv(filesServer); server != "" {
		underLimit(t, netip.MustParseAddrPort(server))
		return
	}
	forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(id.Destination))
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					// Without the types io.Copy would splice through pipes
					// that are only given back with the garbage.
					_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
					_ = c.Close()
				})
			}
		})
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFilesShort$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), filesServer+"="+ln.Addr().String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		_ = ln.Close()
		serving.Wait()
	})
}

// underLimit is the child's part.
func underLimit(t *testing.T, server netip.AddrPort) {
	t.Helper()
	const limit = 160
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			id := flow.ID{Protocol: flow.TCP, Client: netip.MustParseAddrPort("198.18.0.1:40000"), Destination: server}
			r := &rig{t: t, id: id, records: make(chan Record, 100_000), ctx: context.Background()}
			r.start(e, Options{Allow: []Class{ClassLoopback}})
			r.d.dial.files.quiet = time.Second
			events := make(chan FilesEvent, 100)
			r.h.OnShortage(func(e FilesEvent) { events <- e })
			flood(r, limit, events)
		})
	}
}

// flood opens more connections than the limit allows, and then fewer.
func flood(r *rig, limit int, events chan FilesEvent) {
	t := r.t
	t.Helper()
	var served sync.WaitGroup
	old := r.connect(&served)
	if old == nil {
		t.Fatal("refused with descriptors left")
	}
	stop := make(chan struct{})
	rounds, checked := echoRounds(t, old, stop)
	var open []*flow.NetConn
	refused := 0
	for range 10 * limit {
		if c := r.connect(&served); c != nil {
			open = append(open, c)
		} else {
			refused++
		}
	}
	if refused == 0 || len(open) < limit/2 || len(open) > limit-limit/8 {
		t.Errorf("%d connections of %d were served with %d descriptors", len(open), 10*limit, limit)
	}
	began := rounds.Load()
	eventually(t, "the old connection goes on", func() bool { return rounds.Load() > began+10 })
	if f, err := os.Open("/proc/self/stat"); err != nil {
		t.Errorf("nothing is left to the rest of the process: %v", err)
	} else {
		_ = f.Close()
	}
	if e := await(t, "news of the shortage", events); e.Over || e.Limit != limit {
		t.Errorf("told %+v", e)
	}
	s := r.h.Stats()
	if !s.FilesShort || s.FilesShortages != 1 || s.TCP.Dials[DialNoFiles] != uint64(refused) {
		t.Errorf("counted %v, %d, %d refusals of %d", s.FilesShort, s.FilesShortages, s.TCP.Dials[DialNoFiles], refused)
	}

	// One that ends makes room for one at once.
	open[0].Abort()
	eventually(t, "room for one", func() bool { open[0] = r.connect(&served); return open[0] != nil })
	for _, c := range open {
		c.Abort()
	}
	eventually(t, "all is served again", func() bool {
		if c := r.connect(&served); c != nil {
			c.Abort()
		}
		return !r.h.Stats().FilesShort
	})
	if e := await(t, "the end of the shortage", events); !e.Over || e.Refused < uint64(refused) {
		t.Errorf("told %+v, %d were refused", e, refused)
	}
	if len(events) != 0 {
		t.Errorf("told %d times more", len(events))
	}
	close(stop)
	<-checked
	old.Abort()
	served.Wait()
}

// connect opens one connection through the handler; nil if it was refused.
func (r *rig) connect(served *sync.WaitGroup) *flow.NetConn {
	r.t.Helper()
	client, server := pipe(r.t, r.id, nil)
	req := newRequest(r.t, r.id, server)
	served.Go(func() { r.h.HandleTCP(r.ctx, req) })
	switch a := await(r.t, "an answer to the SYN", req.answered); a {
	case "accept":
		return flow.NewNetConn(client)
	case "refuse":
	default:
		r.t.Errorf("answered by %s", a)
	}
	return nil
}

// echoRounds uses c until stop is closed, byte for byte, and counts the rounds.
func echoRounds(t *testing.T, c *flow.NetConn, stop chan struct{}) (rounds *atomic.Int64, done chan struct{}) {
	t.Helper()
	rounds, done = new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(done)
		got := make([]byte, 5000)
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			want := bytesOf(i, len(got))
			if _, err := c.Write(want); err != nil {
				t.Errorf("the old connection: %v", err)
				return
			}
			if _, err := io.ReadFull(c, got); err != nil || firstDifference(got, want) != len(got) {
				t.Errorf("the old connection: %v, differs at %d", err, firstDifference(got, want))
				return
			}
			rounds.Add(1)
		}
	}()
	return rounds, done
}

// TestFilesEvents: near the limit, flows that come and go are one shortage.
func TestFilesEvents(t *testing.T) {
	f := newFiles()
	f.quiet = time.Hour
	var told []string
	f.onShortage(func(e FilesEvent) { told = append(told, fmt.Sprint(e.Over, e.Refused)) })
	ask := func(limit int64) {
		f.freed()
		f.limit.Store(limit)
		fd, err := f.socket(unix.AF_INET, unix.SOCK_DGRAM)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
	f.fail()
	for range 5 {
		ask(1 << 20)
		f.fail()
	}
	f.quiet = 0
	ask(1 << 20)
	ask(1 << 20)
	f.fail()
	if got := fmt.Sprint(told); got != "[false 0 true 6 false 0]" {
		t.Errorf("told %s", got)
	}
}
