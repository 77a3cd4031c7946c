package link

import (
	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/offload"
)

const (
	// laterMost bounds the resets that a queue keeps, 60 bytes or so each: when all
	// of a million clients go at once, each has sent one.
	laterMost = 1 << 20
	// laterChunk is the size of a piece of their memory.
	laterChunk = 64 << 10
	// laterTurn is how many are served before the device is looked at again: 2 ms.
	laterTurn = 64
)

// later keeps RSTs that end connections while the queue is pressed. To end one takes
// 30 us, to read a frame one; and what the device drops meanwhile is gone: clients
// reset once, and who is still believed to be there is found by keepalive alone. It is
// a longer queue, for packets that may be late. It belongs to the loop.
type later struct {
	q      *queue
	on     bool // the queue is read by the loop
	busy   bool // serving, when nothing is put off again
	task   loop.Task
	chunks [][]byte // packets, each behind its length; the first from at on
	at     int
	n      int
	spare  []byte // a chunk for the next that is needed
	turn   uint64 // the queue's batches when serve last gave way to them
}

func (l *later) init(q *queue) {
	l.q, l.on = q, q.e.loop != nil && q.dev.FD() >= 0
	l.task.Init(loop.RunnerFunc(l.serve))
}

// room reports whether one more may be kept.
func (l *later) room() bool { return l.on && !l.busy && l.q.press.pressed && l.n < laterMost }

// add keeps an IP packet that is nothing but headers.
func (l *later) add(packet []byte) {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last])+1+len(packet) > laterChunk {
		c := l.spare
		if l.spare = nil; c == nil {
			c = make([]byte, 0, laterChunk)
		}
		l.chunks = append(l.chunks, c[:0])
		last++
	}
	l.chunks[last] = append(append(l.chunks[last], byte(len(packet))), packet...) //nolint:gosec // at most headMax
	l.n++
}

// next takes the oldest out; it is valid until add is called.
func (l *later) next() []byte {
	c := l.chunks[0]
	end := l.at + 1 + int(c[l.at])
	packet := c[l.at+1 : end]
	l.at = end
	if l.n--; end == len(c) {
		l.spare, l.at = c, 0
		l.chunks[0] = nil
		l.chunks = l.chunks[1:]
	}
	if l.n == 0 {
		l.chunks, l.spare = nil, nil
	}
	return packet
}

// resume lets what is kept be served behind the next batch, if there is one.
func (l *later) resume() {
	if l.n > 0 {
		l.q.e.loop.Post(&l.task)
	}
}

// serve shows some of the packets again, by the steps that follow the guard's.
func (l *later) serve() {
	q := l.q
	if q.press.left && l.turn != q.batches {
		l.turn = q.batches
		l.resume()
		return
	}
	// A full batch may have been the last, which shows when no other comes.
	q.press.left = false
	q.clock = q.e.Now()
	l.busy = true
	for range min(l.n, laterTurn) {
		packet := l.next()
		var p offload.Packet
		if offload.Parse(&p, packet, len(packet)) != offload.OK {
			continue
		}
		if r, ok := q.judge(&p, packet); ok {
			q.hand(p.Version, buffer.MakeWithData(packet), &r)
		}
	}
	l.busy = false
	l.resume()
}
