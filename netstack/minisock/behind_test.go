package minisock

import (
	"encoding/binary"
	"testing"

	"github.com/tungate/tungate/offload"
)

// TestBehindWindow: an ACK from behind a window of zero is given the number that the
// stack takes, if the window was open that far before; nothing else is changed.
func TestBehindWindow(t *testing.T) {
	const sent, taken = 100, 80
	for _, c := range []struct {
		name   string
		window uint16 // as the stack's last ACK says
		g      seg
		want   uint32 // above irs + 1
	}{
		{"behind", 0, seg{flags: ack, seq: sent}, taken},
		{"with PSH", 0, seg{flags: ack | offload.TCPPsh, seq: sent}, taken},
		{"at the edge", 0, seg{flags: ack, seq: taken}, taken},
		{"before it, a probe", 0, seg{flags: ack, seq: taken - 1}, taken - 1},
		{"behind all that was ever open", 0, seg{flags: ack, seq: 600<<7 + 1}, 600<<7 + 1},
		{"data", 0, seg{flags: ack, seq: taken, data: 20}, taken},
		{"data behind", 0, seg{flags: ack, seq: sent, data: 20}, sent},
		{"FIN", 0, seg{flags: ack | fin, seq: sent}, sent},
		{"an open window", 1, seg{flags: ack, seq: sent}, sent},
	} {
		t.Run(c.name, func(t *testing.T) {
			families(t, func(t *testing.T, p pair) {
				for _, partial := range []bool{false, true} {
					conn := newRig(t, nil).open(p).establish()
					opts, stackOpts := tsOpt(clientTS+1, conn.ts), tsOpt(stackTS, clientTS)
					const unit = 1 // 128 bytes
					conn.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: unit, opts: stackOpts})
					conn.in(p, seg{flags: ack, seq: irs + 1, ack: conn.isn + 1, wnd: 500, opts: opts, data: sent})
					conn.out(p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1 + taken, wnd: c.window, opts: stackOpts})
					g := c.g
					g.seq, g.ack, g.wnd, g.opts = g.seq+irs+1, conn.isn+1, 500, opts
					b := raw(p, g)
					d := describe(conn, b, partial, 3)
					conn.verdict(conn.t.Inbound(&d, conn.now), Pass, None)
					if !partial {
						decode(conn, b) // looks at the checksum
					}
					if seq := binary.BigEndian.Uint32(d.TCP[4:]); seq != irs+1+c.want {
						t.Errorf("the stack sees %d, want %d", seq-irs-1, c.want)
					}
				}
			})
		})
	}
}
