package link

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/tundev"
)

// TestPress: a queue is pressed that had frames for a while without a pause, and no
// longer when it has run empty once.
func TestPress(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	type step struct {
		at   time.Duration
		left bool // the batch left frames behind
		want bool
	}
	for name, steps := range map[string][]step{
		"idle":  {{0, false, false}, {time.Hour, false, false}, {2 * time.Hour, false, false}},
		"burst": {{0, false, false}, {10 * ms, true, false}, {10*ms + 900*us, true, false}, {11 * ms, false, false}},
		"flood": {{0, false, false}, {10 * ms, true, false}, {11*ms + us, true, true}, {20 * ms, true, true}, {90 * ms, false, true}},
		"again": {{0, false, false}, {1 * ms, true, false}, {3 * ms, false, true}, {3 * ms, true, false}, {4 * ms, true, false}, {5 * ms, true, true}},
	} {
		var p press
		for i, s := range steps {
			p.begin(s.at)
			p.left = s.left
			if p.pressed != s.want {
				t.Errorf("%s: batch %d: pressed %v", name, i, p.pressed)
			}
		}
	}
}

// listener answers nothing itself.
type listener struct{}

func (listener) Emit([]byte, uint16)                                  {}
func (listener) Gone(minisock.Handle, uint32, minisock.Cause)         {}
func (listener) Ended(netip.AddrPort, netip.AddrPort, minisock.Cause) {}
func (listener) Stalled(netip.AddrPort, netip.AddrPort, uint16)       {}

// TestPressed: SYNs past the bounds are spared while the queue does not run empty, and
// answered when it has.
func TestPressed(t *testing.T) {
	frame := segment(0, 0)
	header.TCP(frame[hdrLen+header.IPv4MinimumSize:]).SetFlags(uint8(header.TCPFlagSyn))
	for name, tso := range map[string]bool{"whole": true, "merging": false} {
		t.Run(name, func(t *testing.T) {
			flows, err := minisock.New(minisock.Options{AlwaysCookies: true}, listener{})
			if err != nil {
				t.Fatal(err)
			}
			d := &endless{frame: frame, features: tundev.Features{VnetHdr: true, Checksum: true, TSO4: tso, TSO6: tso}}
			e := New(Options{Device: d, Flows: flows})
			e.Attach(nobody{})
			q := e.device.Load().queues[0]
			defer q.receiver.release()
			count := func(c minisock.Cause) uint64 { return flows.Stats().Counters[c] }
			batch := func(frames int) {
				t.Helper()
				d.left = frames
				if err := q.batch(0); err != nil {
					t.Fatal(err)
				}
			}
			for range 2000 { // each with a pause behind it; more than whoever asks is given
				batch(3)
			}
			if n := count(minisock.SYNSpared); n != 0 {
				t.Fatalf("%d spared though the queue ran empty", n)
			}
			for deadline := time.Now().Add(5 * time.Second); count(minisock.SYNSpared) == 0; {
				if time.Now().After(deadline) {
					t.Fatal("none was spared")
				}
				batch(1 << 20)
			}
			batch(0)
			before := count(minisock.CookieSent)
			batch(30)
			if n := count(minisock.CookieSent) - before; n != 30 {
				t.Errorf("%d of 30 answered after the pause", n)
			}
		})
	}
}
