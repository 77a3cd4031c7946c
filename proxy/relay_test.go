package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// TestRelayBulk compares every byte, both ways at once, through windows of the
// client from one segment to more than a socket holds.
func TestRelayBulk(t *testing.T) {
	const size = 6<<20 + 12345
	for _, tc := range []struct {
		name   string
		window int
	}{{"small window", 1460}, {"usual window", defaultWindow}, {"large window", 8 << 20}} {
		t.Run(tc.name, func(t *testing.T) {
			forRelays(t, Options{}, func(t *testing.T, j *joined) {
				j.end.setWindow(tc.window)
				up, down := bytesOf(1, size), bytesOf(2, size)
				exchange(t, j.client, j.up, up, down)
				rec := j.ended(flow.ReasonDone)
				if rec.Up != size || rec.Down != size {
					t.Errorf("recorded %d up, %d down; want %d", rec.Up, rec.Down, size)
				}
				s := j.h.Stats().TCP
				if s.BytesUp != size || s.BytesDown != size || s.Opened != 1 || s.Closed[flow.ReasonDone] != 1 || s.Dials[DialOK] != 1 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

// TestRelayPingPong: a byte that is held back stops it.
func TestRelayPingPong(t *testing.T) {
	forRelays(t, Options{}, func(t *testing.T, j *joined) {
		b := make([]byte, 1)
		for i := range 1000 {
			from, to := io.ReadWriter(j.client), io.ReadWriter(j.up)
			if i%2 == 1 {
				from, to = to, from
			}
			b[0] = byte(i)
			if _, err := from.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(to, b); err != nil || b[0] != byte(i) {
				t.Fatalf("round %d: %d, %v", i, b[0], err)
			}
		}
	})
}

// TestRelayHalfClose ends one direction, uses the other, and ends that.
func TestRelayHalfClose(t *testing.T) {
	request, answer := bytesOf(3, 100_000), bytesOf(4, 3<<20)
	t.Run("client first", func(t *testing.T) {
		forRelays(t, Options{}, func(t *testing.T, j *joined) {
			go send(t, j.client, request)
			receive(t, "upstream", j.up, request)
			go send(t, j.up, answer)
			receive(t, "client", j.client, answer)
			j.ended(flow.ReasonDone)
		})
	})
	t.Run("upstream first", func(t *testing.T) {
		forRelays(t, Options{}, func(t *testing.T, j *joined) {
			go send(t, j.up, answer)
			receive(t, "client", j.client, answer)
			go send(t, j.client, request)
			receive(t, "upstream", j.up, request)
			j.ended(flow.ReasonDone)
		})
	})
	t.Run("empty", func(t *testing.T) {
		forRelays(t, Options{}, func(t *testing.T, j *joined) {
			exchange(t, j.client, j.up, nil, nil)
			j.ended(flow.ReasonDone)
		})
	})
}

// TestRelayReset carries a reset to the other side, whatever that is doing.
func TestRelayReset(t *testing.T) {
	for _, tc := range []struct {
		name     string
		prepare  func(j *joined)
		upstream flow.CloseReason // how the relay ends if the upstream resets
	}{
		{"idle", func(*joined) {}, flow.ReasonUpstreamReset},
		{"after FIN of the client", func(j *joined) {
			_ = j.client.CloseWrite()
			_, _ = io.Copy(io.Discard, j.up)
		}, flow.ReasonUpstreamReset},
		{"after FIN of the upstream", func(j *joined) {
			_ = j.up.CloseWrite()
			_, _ = io.Copy(io.Discard, j.client)
		}, flow.ReasonDone}, // it had said all it had to say
		{"client's window full", func(j *joined) { j.fillClient() }, flow.ReasonUpstreamReset},
		{"upstream socket full", func(j *joined) { j.fillUpstream() }, flow.ReasonUpstreamReset},
		{"both full", func(j *joined) { j.fillClient(); j.fillUpstream() }, flow.ReasonUpstreamReset},
	} {
		t.Run("client, "+tc.name, func(t *testing.T) {
			forRelays(t, Options{}, func(t *testing.T, j *joined) {
				tc.prepare(j)
				j.client.Abort()
				j.ended(flow.ReasonClientReset)
				wantError(t, "upstream", j.up)
			})
		})
		t.Run("upstream, "+tc.name, func(t *testing.T) {
			forRelays(t, Options{}, func(t *testing.T, j *joined) {
				tc.prepare(j)
				reset(j.up)
				wantError(t, "client", j.client)
				j.ended(tc.upstream)
			})
		})
	}
}

// wantError uses a connection until it says that it is broken.
func wantError(t *testing.T, who string, c io.ReadWriter) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if err == nil { // an end that came before; only a write shows the reset
		for err == nil {
			_, err = c.Write(make([]byte, 1))
		}
		if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			t.Errorf("%s: write: %v, want ECONNRESET or EPIPE", who, err)
		}
		return
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%s: read: %v, want ECONNRESET", who, err)
	}
}

// fillClient makes the upstream send more than the client's window and both
// sockets hold, and returns once the relay is stuck with it.
func (j *joined) fillClient() {
	stuff(j.t, j.up)
	eventually(j.t, "the client's window is full", func() bool { return j.end.unread() == defaultWindow })
}

// fillUpstream is fillClient for the other direction.
func (j *joined) fillUpstream() {
	j.t.Helper()
	stuff(j.t, j.client)
	eventually(j.t, "the upstream socket is full", func() bool { return j.end.peer.unread() == defaultWindow })
}

// stuff writes until nothing was taken for a while.
func stuff(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 256<<10)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Write(b); err != nil {
			if n > 0 {
				continue
			}
			break
		}
	}
	_ = c.SetWriteDeadline(time.Time{})
}

// TestRelayEarlyAnswer: an upstream that answers and closes while the client
// still sends is heard to its last byte.
func TestRelayEarlyAnswer(t *testing.T) {
	forRelays(t, Options{}, func(t *testing.T, j *joined) {
		answer := bytesOf(5, 100_000)
		if _, err := j.client.Write(bytesOf(6, 200_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(j.up, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		go func() {
			b := make([]byte, 10_000)
			for { // until the relay tells us
				if _, err := j.client.Write(b); err != nil {
					return
				}
			}
		}()
		if _, err := j.up.Write(answer); err != nil {
			t.Fatal(err)
		}
		// Reading on until the answer was taken keeps the RST that a close
		// with unread bytes means from destroying it.
		_ = j.up.CloseWrite()
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(j.client, got); err != nil {
			t.Fatal(err)
		}
		_ = j.up.Close()
		if d := firstDifference(got, answer); d != len(answer) {
			t.Errorf("the answer differs from byte %d on", d)
		}
		j.ended(flow.ReasonDone)
	})
}

// TestRelayLateReader: a client that reads only when it has sent everything comes
// to that, although the upstream is gone and its answer fills the client's window.
func TestRelayLateReader(t *testing.T) {
	answer := bytesOf(7, 50_000)
	for name, tc := range map[string]struct {
		before string // what the upstream does not read before it closes
		want   flow.CloseReason
	}{
		"FIN, then RST": {"", flow.ReasonDone},
		"RST at once":   {"never read", flow.ReasonUpstreamReset},
	} {
		t.Run(name, func(t *testing.T) {
			forRelays(t, Options{}, func(t *testing.T, j *joined) {
				j.end.setWindow(1000)
				if _, err := j.up.Write(answer); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the client's window is full", func() bool { return j.end.unread() == 1000 })
				if _, err := j.client.Write([]byte(tc.before)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the upstream has it", func() bool { return unreadBy(t, j.up) == len(tc.before) })
				_ = j.up.Close()
				if _, err := j.client.Write(make([]byte, 20<<20)); err != nil {
					t.Errorf("the client cannot finish: %v", err)
				}
				_ = j.client.CloseWrite()
				got := make([]byte, len(answer))
				if _, err := io.ReadFull(j.client, got); err != nil || firstDifference(got, answer) != len(answer) {
					t.Errorf("%v; the answer differs from byte %d on", err, firstDifference(got, answer))
				}
				j.ended(tc.want)
				if err := j.end.failure(); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the client ended with %v, though its bytes were lost", err)
				}
			})
		})
	}
}

// unreadBy is how many bytes c has received and not read.
func unreadBy(t *testing.T, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRelayClientTimeout passes an error other than a reset on as RST.
func TestRelayClientTimeout(t *testing.T) {
	forRelays(t, Options{}, func(t *testing.T, j *joined) {
		j.end.peer.fail(unix.ETIMEDOUT)
		wantReset(t, "upstream", j.up)
		j.ended(flow.ReasonClientReset)
	})
}
