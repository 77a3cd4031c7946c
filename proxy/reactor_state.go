package proxy

// halves is the state of an open reactorFlow's two directions, as far as it decides
// what the flow waits for.
type halves struct {
	upDone   bool // the client's FIN was passed on, or nothing of it can be
	upFull   bool // the socket did not take all that the client sent
	refused  bool // the upstream takes no more of what the client sends
	downDone bool // the upstream's FIN was passed on
	downFull bool // the client did not take all that the socket gave
}

// interest is a set of what a flow waits for.
type interest uint8

const (
	clientBytes   interest = 1 << iota // bytes or FIN of the client
	clientRoom                         // the client to take bytes
	upstreamBytes                      // bytes or FIN of the upstream
	upstreamRoom                       // the upstream to take bytes
)

// interest is a function of the state alone. Nobody is told of it: the stack tells
// of every change, and the socket is in epoll for all events, edge-triggered, from
// the begin to the end, which saves a system call a change. It decides what is
// tried when news comes, and which side has stalled when none does.
func (h halves) interest() interest {
	var i interest
	switch {
	case h.refused:
		i |= clientBytes // to throw away
	case h.upDone:
	case h.upFull:
		i |= upstreamRoom
	default:
		i |= clientBytes
	}
	switch {
	case h.downDone:
	case h.downFull:
		i |= clientRoom
	default:
		i |= upstreamBytes
	}
	return i
}

// over reports whether nothing is left to be done.
func (h halves) over() bool { return h.upDone && h.downDone }

// halfClosed reports whether one direction is over and the other is not.
func (h halves) halfClosed() bool { return h.upDone != h.downDone }
