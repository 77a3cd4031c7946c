package lan

import "time"

// turnArgs is what the caller of an exported method gave for its turn.
type turnArgs struct {
	now  time.Time
	send func(frame []byte)
}

// turn collects, under the lock, what is to be done when it is released.
type turn struct {
	now    time.Duration // since LAN.start
	frames [][]byte
	ready  []arrival
	lost   []Pending
}

// arrival is a packet whose station was found.
type arrival struct {
	to MAC
	p  Pending
}

func (l *LAN) begin(now time.Time) turn { return turn{now: now.Sub(l.start)} }

func (t *turn) reply(frame []byte)     { t.frames = append(t.frames, frame) }
func (t *turn) send(to MAC, p Pending) { t.ready = append(t.ready, arrival{to, p}) }
func (t *turn) drop(p Pending)         { t.lost = append(t.lost, p) }

// finish is called with no lock held. Frames of ours go before packets, so that a
// guest that asked has its answer when they come.
func (t *turn) finish(send func(frame []byte)) {
	for _, f := range t.frames {
		send(f)
	}
	for _, a := range t.ready {
		a.p.Send(a.to)
	}
	for _, p := range t.lost {
		p.Drop()
	}
}
