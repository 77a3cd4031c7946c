package netstack

import "sync/atomic"

// budget bounds by how much connections' buffers may have grown, all together (Linux's
// tcp_mem). A buffer grows when its flow can use more, and stays so: many flows that
// were fast and then stall could otherwise fill the memory, each within its own bound.
type budget struct {
	limit int64 // bytes; 0 is none
	used  atomic.Int64
}

// spent reports whether nothing is left, when no buffer grows.
func (b *budget) spent() bool { return b.limit > 0 && b.used.Load() >= b.limit }

// grown is by how much a buffer of one connection has grown, in bytes, of which maxBuffer
// is the most; ended if that is over.
type grown struct{ atomic.Int32 }

const ended = -1

// is notes the size of a buffer that began with first. One goroutine may call it, and
// another end.
func (g *grown) is(b *budget, size, first int64) {
	was, now := g.Load(), int32(min(max(0, size-first), maxBuffer))
	if was != now && was != ended && g.CompareAndSwap(was, now) {
		b.used.Add(int64(now - was))
	}
}

// end gives back what the buffer had.
func (g *grown) end(b *budget) {
	if was := g.Swap(ended); was > 0 {
		b.used.Add(-int64(was))
	}
}

// received notes n bytes that were read, and lets the receive buffer grow by what was
// read in a round trip, if there is budget.
func (c *conn) received(n int) {
	if c.s.budget.spent() {
		return
	}
	c.ep.ModerateRecvBuf(n)
	c.receiveGrown.is(&c.s.budget, c.ep.SocketOptions().GetReceiveBufferSize(), int64(c.s.opts.TCP.FirstReceiveBuffer))
}

// noteSendBuffer notes what gVisor has made of the send buffer, which follows the
// congestion window. Without budget it stays as it is, from now on.
func (c *conn) noteSendBuffer() {
	o := c.ep.SocketOptions()
	size := o.GetSendBufferSize()
	c.sendGrown.is(&c.s.budget, size, int64(c.s.opts.TCP.FirstSendBuffer))
	if c.sendGrown.Load() > 0 && !c.sendFixed && c.s.budget.spent() {
		c.sendFixed = true
		o.SetSendBufferSize(size, true)
	}
}
