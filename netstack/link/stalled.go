package link

import (
	"context"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

const (
	// stalledAfter is when a segment that was sent again is asked for. The stack's own
	// timer begins at 200 ms or a few round trips and doubles; this doubles as well,
	// each time that the stack has sent, so that a timer that runs comes first.
	stalledAfter = 3 * time.Second
	// stalledTimes is how often it doubles.
	stalledTimes = 6
	// stalledLook is how often that is looked at; and when a stalled connection has
	// still not sent, the next attempt comes.
	stalledLook = time.Second
	// stalledMost is how many flows are watched, 100 bytes each.
	stalledMost = 1 << 16
)

// stalls watches flows whose stack has sent something again until that is acknowledged:
// minisock's Result.Again says why. It does not matter much if one is missed, which
// ends by Options.Unacknowledged.
type stalls struct {
	e    *Endpoint
	kick chan struct{} // flows is no longer empty

	mu    sync.Mutex
	flows map[minisock.Handle]resent
}

// resent is the last segment that a flow has sent again.
type resent struct {
	end      uint32        // behind it
	due      time.Duration // by the flows' clock
	times    uint8         // that it was sent
	attempts uint8         // to have it sent once more, since
}

func (s *stalls) init(e *Endpoint) {
	s.e, s.flows, s.kick = e, map[minisock.Handle]resent{}, make(chan struct{}, 1)
}

// add notes a segment that was sent again. It may be called under the stack's locks.
func (s *stalls) add(h minisock.Handle, pkt *stack.PacketBuffer) {
	tcp := header.TCP(pkt.TransportHeader().Slice())
	end := tcp.SequenceNumber() + uint32(pkt.Data().Size()) //nolint:gosec // a packet's
	if uint8(tcp.Flags())&offload.TCPFin != 0 {
		end++
	}
	now := s.e.Now()
	s.mu.Lock()
	r, known := s.flows[h]
	first := len(s.flows) == 0
	if known || len(s.flows) < stalledMost {
		if !known || r.end != end {
			r = resent{end: end}
		}
		r.due, r.attempts = now+stalledAfter<<r.times, 0
		r.times = min(r.times+1, stalledTimes)
		s.flows[h] = r
	}
	s.mu.Unlock()
	if first {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// run looks at the flows until ctx is done.
func (s *stalls) run(ctx context.Context) {
	timer := s.e.NewTimer(time.Hour)
	defer timer.Stop()
	var due []minisock.Handle
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			timer.Reset(stalledLook)
		case <-timer.C:
			if due = s.look(due[:0]); len(due) > 0 || s.any() {
				timer.Reset(stalledLook)
			}
		}
	}
}

func (s *stalls) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flows) > 0
}

// look asks for what is due and returns which flows these were, appended to due.
func (s *stalls) look(due []minisock.Handle) []minisock.Handle {
	now := s.e.Now()
	s.mu.Lock()
	for h, r := range s.flows {
		if r.due <= now {
			due = append(due, h)
		}
	}
	s.mu.Unlock()
	for _, h := range due {
		s.ask(h, now)
	}
	return due
}

// ask has what is due of a flow sent once more. The stack may do so during the call.
func (s *stalls) ask(h minisock.Handle, now time.Duration) {
	s.mu.Lock()
	r := s.flows[h]
	s.mu.Unlock()
	if r.due > now {
		return
	}
	wanted := s.e.flows.Stalled(h, r.end, int(r.attempts))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flows[h] != r: // it was sent
	case wanted:
		r.attempts++
		s.flows[h] = r
	default:
		delete(s.flows, h)
	}
}
