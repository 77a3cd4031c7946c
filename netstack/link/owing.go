package link

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack/minisock"
)

// ackDelay is how long an ACK waits for data to go with: long for an answer from the
// next host, and nothing against the 40 ms of Linux's TCP_DELACK_MIN.
const ackDelay = time.Millisecond

// owing are the ACKs that the table keeps, the oldest first. Most have gone out with
// data when their time comes.
type owing struct {
	e     *Endpoint
	begin loop.Task
	alarm loop.Alarm
	timer tcpip.Timer // in place of both, without a loop

	mu    sync.Mutex
	acks  []owed
	spare []owed // memory for acks, while those are served
}

type owed struct {
	flow minisock.Handle
	ack  uint32
	due  time.Duration // by the flows' clock
}

func (o *owing) init(e *Endpoint) {
	o.e = e
	o.begin.Init(loop.RunnerFunc(func() { e.loop.SetAlarm(&o.alarm, ackDelay) }))
	o.alarm.Init(loop.ExpirerFunc(o.expire))
	o.timer = e.clock.AfterFunc(time.Hour, o.expire)
	o.timer.Stop()
}

// add notes an ACK of a flow's. It may be called under the stack's locks.
func (o *owing) add(h minisock.Handle, ack uint32, now time.Duration) {
	o.mu.Lock()
	o.acks = append(o.acks, owed{h, ack, now + ackDelay})
	first := len(o.acks) == 1
	o.mu.Unlock()
	switch {
	case !first:
	case o.e.loop != nil:
		o.e.loop.Post(&o.begin)
	default:
		o.timer.Reset(ackDelay)
	}
}

// expire sends what is due and has not gone by itself.
func (o *owing) expire() {
	now := o.e.Now()
	o.mu.Lock()
	n := 0
	for n < len(o.acks) && o.acks[n].due <= now {
		n++
	}
	due := append(o.spare[:0], o.acks[:n]...)
	o.spare = nil
	o.acks = append(o.acks[:0], o.acks[n:]...)
	wait := time.Duration(-1)
	if len(o.acks) > 0 {
		wait = o.acks[0].due - now
	}
	o.mu.Unlock()
	for _, f := range due {
		o.e.flows.Acknowledge(f.flow, f.ack)
	}
	o.mu.Lock()
	o.spare = due
	o.mu.Unlock()
	switch {
	case wait < 0:
	case o.e.loop != nil:
		o.e.loop.SetAlarm(&o.alarm, wait)
	default:
		o.timer.Reset(wait)
	}
}
