package netstack

import (
	"time"

	"github.com/tungate/tungate/flow"
)

// FailAttempts ends the attempts that are under way, as a timer does.
func (s *Stack) FailAttempts(err error) (n int) {
	for _, a := range s.attempts.snapshot() {
		a.fail(err)
		n++
	}
	return n
}

// SendBuffer is what a connection's send buffer was bounded to, and what it is.
func SendBuffer(c flow.Conn) (bound, size int64) {
	cn := c.(*conn)
	return cn.bulk.Load().size, cn.ep.SocketOptions().GetSendBufferSize()
}

// Bulk is how many flows count as bulk ones.
func (s *Stack) Bulk() int64 { return s.counters.bulk.Load() }

// BufferFor is sendBuffer.
func BufferFor(rtt time.Duration, flows int64) int64 { return sendBuffer(rtt, flows) }
