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
	// each time that the stack has sent and nothing came of it, so that a timer that
	// runs comes first.
	stalledAfter = 5 * time.Second
	// stalledTimes is how often it doubles.
	stalledTimes = 6
	// stalledLook is how often that is looked at.
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
	end   uint32        // behind it
	acked uint32        // minisock's Result.Acked
	due   time.Duration // by the flows' clock
	times uint8         // that something was sent again, since more was acknowledged
}

func (s *stalls) init(e *Endpoint) {
	s.e, s.flows, s.kick = e, map[minisock.Handle]resent{}, make(chan struct{}, 1)
}

// add notes a segment that was sent again. It may be called under the stack's locks.
func (s *stalls) add(h minisock.Handle, acked uint32, pkt *stack.PacketBuffer) {
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
		if !known || r.acked != acked {
			r = resent{acked: acked}
		}
		r.end = end
		r.again(now)
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
	timer := s.e.NewTimer(stalledLook) // there may be some from before the device was made again
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			timer.Reset(stalledLook)
		case <-timer.C:
			if s.look(); s.any() {
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

// look asks for what is due.
func (s *stalls) look() {
	now := s.e.Now()
	var due []minisock.Handle // asked without the lock, which add takes meanwhile
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
}

// ask has what is due of a flow sent once more, which happens during the call.
func (s *stalls) ask(h minisock.Handle, now time.Duration) {
	s.mu.Lock()
	r := s.flows[h]
	s.mu.Unlock()
	if r.due > now {
		return
	}
	unacked := s.e.flows.Stalled(h, r.end)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flows[h] != r: // it was sent
	case !unacked:
		delete(s.flows, h)
	default:
		r.again(now)
		s.flows[h] = r
	}
}

// again sets the time until the next attempt.
func (r *resent) again(now time.Duration) {
	r.due = now + stalledAfter<<r.times
	r.times = min(r.times+1, stalledTimes)
}
