package netstack

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/netstack/minisock"
)

// timeWait is how long gVisor's endpoint stays in TIME_WAIT. Package minisock's
// record has taken over by then, so it is as short as can be.
const timeWait = time.Millisecond

// configureTCP sets the protocol's options.
func (s *Stack) configureTCP() error {
	o := s.opts.TCP
	sack := tcpip.TCPSACKEnabled(!o.NoSACK)
	cc := tcpip.CongestionControlOption(o.CongestionControl)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: o.FirstReceiveBuffer, Max: o.ReceiveBuffer}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: o.FirstSendBuffer, Max: o.SendBuffer}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&sack, &cc, &wait, &moderate, &rcv, &snd} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("netstack: TCP option %T: %w", opt, translate(err))
		}
	}
	return nil
}

// tune sets the options that gVisor keeps per endpoint.
func (s *Stack) tune(ep tcpip.Endpoint) {
	// It fails only for values that Validate refused.
	_ = ep.SetSockOpt(&s.userTimeout)
}

// closing are connections that their handler has closed and whose last segments
// gVisor still sees to. Should it give them up, nothing says so but their state.
type closing struct {
	mu   sync.Mutex
	list []closed
	kick chan struct{} // the list is no longer empty
}

type closed struct {
	ep tcpip.Endpoint
	h  minisock.Handle
}

const (
	// closingEvery is how often they are looked at, as long as there are any: an
	// endpoint is kept so much longer than it lives. closingMost is how many of
	// them are looked at once.
	closingEvery = 100 * time.Millisecond
	closingMost  = 20_000
)

func (c *closing) init() { c.kick = make(chan struct{}, 1) }

func (c *closing) add(ep tcpip.Endpoint, h minisock.Handle) {
	c.mu.Lock()
	c.list = append(c.list, closed{ep, h})
	first := len(c.list) == 1
	c.mu.Unlock()
	if first {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// run looks at them until ctx is done.
func (c *closing) run(ctx context.Context, flows *minisock.Table, l *link.Endpoint) {
	pause := l.NewTimer(closingEvery)
	defer pause.Stop()
	for {
		select {
		case <-c.kick:
		case <-ctx.Done():
			return
		}
		for left := true; left; left = c.sweep(flows, l) {
			pause.Reset(closingEvery)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// sweep forgets those that are over, ends those whose record is, releases the record
// of those that gVisor gave up, and lets the record alone see to those that only wait
// for their client's FIN or for the acknowledgement of ours. It reports whether any
// are left.
func (c *closing) sweep(flows *minisock.Table, l *link.Endpoint) (left bool) {
	c.mu.Lock()
	n := min(len(c.list), closingMost)
	some := append([]closed(nil), c.list[:n]...)
	rest := len(c.list) - n
	copy(c.list, c.list[n:])
	clear(c.list[rest:])
	c.list = c.list[:rest]
	c.mu.Unlock()
	kept := some[:0]
	for _, e := range some {
		switch state := tcp.EndpointState(e.ep.State()); { //nolint:gosec // State returns one of its own
		case state == tcp.StateClose, state == tcp.StateError:
			flows.Release(e.h)
		case gone(flows.State(e.h)):
			// Both FINs are through. gVisor need not have noticed: one that comes
			// late, behind the ACK of ours, leaves it in CLOSING for ever.
			e.ep.Abort() // nothing of it leaves
		case flows.Orphan(e.h, l.Now()):
			l.Hurry()
			e.ep.Abort() // the record goes on without it, and keeps its RST in
		default:
			kept = append(kept, e)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, kept...)
	return len(c.list) > 0
}

// gone reports whether a record has left its endpoint.
func gone(s minisock.State) bool {
	return s == minisock.Free || s == minisock.TimeWait || s == minisock.Linger
}
