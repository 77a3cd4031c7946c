package netstack_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

// TestQuietEnd: records end in their time also if no packet comes any more, and none
// had a timer before.
func TestQuietEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // see settler
	for _, c := range []struct {
		name string
		end  func(r *rig, c flow.Conn, seq, next uint32)
	}{
		{"the client closes first", func(r *rig, c flow.Conn, seq, next uint32) {
			r.send(segment{tuple: tuple4(1), flags: fin | ack, seq: seq, ack: next}.frame())
			r.eventually("FIN", func() bool { return c.Readiness()&flow.EventRdHup != 0 })
			_ = c.Close()
			r.recvFlags(tuple4(1), fin|ack)
			r.send(segment{tuple: tuple4(1), flags: ack, seq: seq + 1, ack: next + 1}.frame())
		}},
		{"this side closes first", func(r *rig, c flow.Conn, seq, next uint32) {
			_ = c.CloseWrite()
			r.recvFlags(tuple4(1), fin|ack)
			r.send(segment{tuple: tuple4(1), flags: fin | ack, seq: seq, ack: next + 1}.frame())
			r.recvFlags(tuple4(1), ack)
			_ = c.Close()
		}},
		{"the client's FIN comes behind its ACK of ours", func(r *rig, c flow.Conn, seq, next uint32) {
			_ = c.CloseWrite()
			r.recvFlags(tuple4(1), fin|ack)
			r.send(segment{tuple: tuple4(1), flags: ack, seq: seq + 1, ack: next + 1}.frame())
			r.send(segment{tuple: tuple4(1), flags: fin | ack, seq: seq, ack: next}.frame())
			r.recvFlags(tuple4(1), ack)
			_ = c.Close()
		}},
		{"the client never closes", func(r *rig, c flow.Conn, seq, next uint32) {
			_ = c.Close()
			r.recvFlags(tuple4(1), fin|ack)
			r.send(segment{tuple: tuple4(1), flags: ack, seq: seq, ack: next + 1}.frame())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock simClock
			a := newAcceptor()
			r := newRigWith(t, a.handler(), netstack.Options{}, netstack.Deps{Clock: &clock})
			seq, next := r.connect(tuple4(1))
			conn := <-a.conns
			clock.pass(30 * time.Second)
			c.end(r, conn, seq, next)
			clock.pass(3 * time.Minute)
			if left := r.s.Leftovers(); left != "" {
				t.Errorf("left after 3 minutes: %s", left)
			}
		})
	}
}

// TestSilentClient: one that goes is found out by keepalives, whether it ever said
// anything or not.
func TestSilentClient(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // see settler
	for _, said := range []string{"", "hello"} {
		t.Run("it said "+said, func(t *testing.T) {
			var clock simClock
			a := newAcceptor()
			o := netstack.Options{TCP: netstack.TCPOptions{KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 5 * time.Second, KeepaliveCount: 3}}
			r := newRigWith(t, a.handler(), o, netstack.Deps{Clock: &clock})
			seq, next := r.connect(tuple4(1))
			conn := <-a.conns
			if said != "" {
				r.send(segment{tuple: tuple4(1), flags: ack, seq: seq, ack: next, payload: []byte(said)}.frame())
			}
			clock.pass(20 * time.Second)
			if conn.Broken() {
				t.Error("broken before a keepalive was due")
			}
			clock.pass(40 * time.Second)
			if !conn.Broken() {
				t.Error("nobody missed the client")
			}
			_ = conn.Close()
		})
	}
}
