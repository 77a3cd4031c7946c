package flow_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// TestNetConn holds NetConn to what every net.Conn promises, with windows from
// one byte up.
func TestNetConn(t *testing.T) {
	for _, window := range []int{1000, 64 << 10, 4 << 20} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				client, server := netPair(t, window)
				return client, server, func() { _ = client.Close(); _ = server.Close() }, nil
			})
		})
	}
}

func netPair(t testing.TB, window int) (client, server *flow.NetConn) {
	a, b := memPair(t, window)
	return flow.NewNetConn(a), flow.NewNetConn(b)
}

func TestNetConnNames(t *testing.T) {
	mem, _ := memPair(t, 1)
	c := flow.NewNetConn(mem)
	if c.ID() != mem.id {
		t.Errorf("ID %v, want %v", c.ID(), mem.id)
	}
	if got := c.LocalAddr().String(); got != mem.id.Destination.String() {
		t.Errorf("LocalAddr %s, want the destination %v", got, mem.id.Destination)
	}
	if got := c.RemoteAddr().String(); got != mem.id.Client.String() {
		t.Errorf("RemoteAddr %s, want the client %v", got, mem.id.Client)
	}
}

// TestNetConnErrors lists what a caller can tell apart by errors.Is.
func TestNetConnErrors(t *testing.T) {
	read := func(c *flow.NetConn) error { _, err := c.Read(make([]byte, 1)); return err }
	write := func(c *flow.NetConn) error { _, err := c.Write([]byte("x")); return err }
	for _, tc := range []struct {
		name    string
		prepare func(c, peer *flow.NetConn)
		call    func(c *flow.NetConn) error
		want    error
	}{
		{"read after Close", func(c, _ *flow.NetConn) { _ = c.Close() }, read, net.ErrClosed},
		{"write after Close", func(c, _ *flow.NetConn) { _ = c.Close() }, write, net.ErrClosed},
		{"write of nothing after Close", func(c, _ *flow.NetConn) { _ = c.Close() }, func(c *flow.NetConn) error { _, err := c.Write(nil); return err }, net.ErrClosed},
		{"CloseWrite after Close", func(c, _ *flow.NetConn) { _ = c.Close() }, (*flow.NetConn).CloseWrite, net.ErrClosed},
		{"deadline after Close", func(c, _ *flow.NetConn) { _ = c.Close() }, func(c *flow.NetConn) error { return c.SetDeadline(time.Time{}) }, net.ErrClosed},
		{"second Close", func(c, _ *flow.NetConn) { _ = c.Close() }, (*flow.NetConn).Close, net.ErrClosed},
		{"Close after Abort", func(c, _ *flow.NetConn) { c.Abort() }, (*flow.NetConn).Close, net.ErrClosed},
		{"read after the peer's Close", func(_, p *flow.NetConn) { _ = p.Close() }, read, io.EOF},
		{"read after the peer's CloseWrite", func(_, p *flow.NetConn) { _ = p.CloseWrite() }, read, io.EOF},
		{"write after CloseWrite", func(c, _ *flow.NetConn) { _ = c.CloseWrite() }, write, unix.EPIPE},
		{"read after the peer's Abort", func(_, p *flow.NetConn) { p.Abort() }, read, unix.ECONNRESET},
		{"write after the peer's Abort", func(_, p *flow.NetConn) { p.Abort() }, write, unix.ECONNRESET},
		{"past read deadline", func(c, _ *flow.NetConn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, read, os.ErrDeadlineExceeded},
		{"past write deadline", func(c, _ *flow.NetConn) { _ = c.SetWriteDeadline(time.Unix(1, 0)) }, write, os.ErrDeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, peer := netPair(t, 10)
			tc.prepare(c, peer)
			err := tc.call(c)
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if errors.Is(tc.want, io.EOF) {
				if err != io.EOF { //nolint:errorlint // io.Reader asks for EOF itself
					t.Errorf("EOF is wrapped in %T", err)
				}
				return
			}
			if op, ok := errors.AsType[*net.OpError](err); !ok || op.Addr.String() != c.RemoteAddr().String() {
				t.Errorf("%T %v, want a net.OpError that names the client", err, err)
			}
		})
	}
}

// TestNetConnKeepsData delivers what came before an end, then the end.
func TestNetConnKeepsData(t *testing.T) {
	for name, end := range map[string]func(*flow.NetConn){
		"FIN":   func(c *flow.NetConn) { _ = c.CloseWrite() },
		"close": func(c *flow.NetConn) { _ = c.Close() },
		"RST":   (*flow.NetConn).Abort,
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := netPair(t, 100)
			if n, err := peer.Write([]byte("last words")); n != 10 || err != nil {
				t.Fatal(n, err)
			}
			end(peer)
			got, err := io.ReadAll(c)
			if string(got) != "last words" {
				t.Errorf("read %q", got)
			}
			if name == "RST" != errors.Is(err, unix.ECONNRESET) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestNetConnUnblocks ends a Read and a Write that wait, by everything that may.
func TestNetConnUnblocks(t *testing.T) {
	for _, tc := range []struct {
		name        string
		end         func(c, peer *flow.NetConn)
		read, write error // nil: goes on waiting
	}{
		{"Close", func(c, _ *flow.NetConn) { _ = c.Close() }, net.ErrClosed, net.ErrClosed},
		{"Abort", func(c, _ *flow.NetConn) { c.Abort() }, net.ErrClosed, net.ErrClosed},
		{"CloseWrite", func(c, _ *flow.NetConn) { _ = c.CloseWrite() }, nil, unix.EPIPE},
		{"the peer's Abort", func(_, p *flow.NetConn) { p.Abort() }, unix.ECONNRESET, unix.ECONNRESET},
		{"the peer's CloseWrite", func(_, p *flow.NetConn) { _ = p.CloseWrite() }, io.EOF, nil},
		{"a read deadline", func(c, _ *flow.NetConn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded, nil},
		{"a write deadline", func(c, _ *flow.NetConn) { _ = c.SetWriteDeadline(time.Unix(1, 0)) }, nil, os.ErrDeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, memPeer := memPair(t, 3)
				mem.mute = true // no Conn promises to notify of its own Close
				c, peer := flow.NewNetConn(mem), flow.NewNetConn(memPeer)
				var readErr, writeErr error
				var wrote int
				var readDone, writeDone bool
				var wg sync.WaitGroup
				wg.Go(func() { _, readErr = c.Read(make([]byte, 1)); readDone = true })
				wg.Go(func() { wrote, writeErr = c.Write([]byte("12345")); writeDone = true })
				synctest.Wait() // both wait: nothing to read, and 3 of 5 bytes fit
				if readDone || writeDone {
					t.Fatal("a call did not wait")
				}
				tc.end(c, peer)
				synctest.Wait()
				if readDone != (tc.read != nil) || !errors.Is(readErr, tc.read) {
					t.Errorf("Read: done %v, %v; want %v", readDone, readErr, tc.read)
				}
				if writeDone != (tc.write != nil) || !errors.Is(writeErr, tc.write) || writeDone && wrote != 3 {
					t.Errorf("Write: done %v, %d bytes, %v; want 3 and %v", writeDone, wrote, writeErr, tc.write)
				}
				_ = c.Close()
				wg.Wait()
			})
		})
	}
}

// TestNetConnDeadline keeps the time to the letter, also when it is moved while a
// call waits.
func TestNetConnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := netPair(t, 1)
		start := time.Now()
		failsAt := func(at time.Duration) {
			t.Helper()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v, want the deadline", err)
			}
			if d := time.Since(start); d != at {
				t.Errorf("after %v, want %v", d, at)
			}
		}
		_ = c.SetReadDeadline(start.Add(time.Hour))
		failsAt(time.Hour)
		_ = c.SetReadDeadline(start.Add(3 * time.Hour))
		time.AfterFunc(time.Minute, func() { _ = c.SetDeadline(start.Add(2 * time.Hour)) })
		failsAt(2 * time.Hour)
		_ = c.SetReadDeadline(start.Add(3 * time.Hour))
		time.AfterFunc(time.Minute, func() { _ = c.SetReadDeadline(time.Time{}) })
		time.AfterFunc(5*time.Hour, func() { _, _ = peer.Write([]byte("x")) })
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("without a deadline: %d, %v", n, err)
		}
		if d := time.Since(start); d != 7*time.Hour {
			t.Errorf("woken after %v", d)
		}
	})
}

// TestNetConnConcurrent lets many goroutines write lines while others end it:
// lines stay whole, and memConn fails the test if two calls of a kind meet.
func TestNetConnConcurrent(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		c, peer := netPair(t, 1+rng.IntN(300))
		line := bytes.Repeat([]byte("x"), rng.IntN(200))
		line = append(line, '\n')
		var writers, rest sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for range 10 {
					if n, err := c.Write(line); err != nil && n == len(line) {
						t.Errorf("wrote all, and %v", err)
					}
				}
			})
			rest.Go(func() { _, _ = io.Copy(io.Discard, c) })
		}
		end := rng.IntN(4)
		rest.Go(func() {
			switch end {
			case 0:
				_ = c.CloseWrite()
			case 1:
				_ = c.Close()
			case 2:
				c.Abort()
			case 3:
				writers.Wait()
				_ = c.CloseWrite()
			}
		})
		got, err := io.ReadAll(peer)
		if err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the peer read %v", err)
		}
		if len(got) > 40*len(line) || end == 3 && len(got) != 40*len(line) {
			t.Errorf("%d bytes of %d arrived", len(got), 40*len(line))
		}
		for i, l := range bytes.SplitAfter(got, []byte("\n")) {
			if whole := bytes.Equal(l, line); !whole && (i+1)*len(line) < len(got) {
				t.Fatalf("line %d is %q", i, l)
			}
		}
		_ = peer.Close()
		c.Abort()
		writers.Wait()
		rest.Wait()
	}
}

// TestNetConnAllocs: a call that need not wait allocates nothing.
func TestNetConnAllocs(t *testing.T) {
	c := flow.NewNetConn(&idleConn{})
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		if n, err := c.Read(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per Write and Read", n)
	}
}

// idleConn is a Conn that always has bytes and always takes some.
type idleConn struct {
	flow.Conn
	b [1 << 10]byte
}

func (*idleConn) SetNotifier(flow.Notifier) {}
func (c *idleConn) ReadTo(w io.Writer) (int64, error) {
	n, err := w.Write(c.b[:])
	return int64(n), err
}

func (c *idleConn) WriteFrom(p flow.Payload) (int64, error) {
	n, err := p.Read(c.b[:min(60, p.Len())])
	return int64(n), err
}
