package netstack

import (
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tungate/tungate/netstack/minisock"
)

// gVisor lets a connection's send buffer grow with the congestion window, which on a
// path that loses nothing, like that to the next namespace or virtual machine, is
// without end. But what lies there has left the processor's caches when its turn
// comes, and to fetch it again costs more than all the rest: eight bulk flows took
// 0.43 s of CPU a GB with 4 MiB each, and 0.26 with half a MiB (docs/adr/0023). So a
// flow that has become a bulk one gets what its path can use, and no more.
const (
	// bulkAfter is when a flow is one, bulkEvery how often its path is measured
	// again, in bytes.
	bulkAfter = 1 << 20
	bulkEvery = 8 << 20

	// A path is near whose least round trip is shorter than farRTT: that of the
	// handshake, or gVisor's. Both clocks count milliseconds.
	farRTT = 2 * time.Millisecond

	// nearBuffers is what all bulk flows over near paths share, between nearLeast
	// and nearMost for each. The most carries 2 Gbit/s over 2 ms, and 20 over the
	// 0.2 ms of a virtual machine.
	nearBuffers = 4 << 20
	nearLeast   = 128 << 10
	nearMost    = 512 << 10
)

// bulk is what a connection knows of its path when it has carried much.
type bulk struct {
	rtt  time.Duration // the least seen
	next int64         // measured again when so many bytes were sent
	size int64         // of the buffer; 0 is gVisor's affair
}

// sent notes n bytes that the endpoint took, and sizes its buffer now and then.
func (c *conn) sent(n int64) {
	c.noteSendBuffer()
	if c.written += n; c.written < bulkAfter {
		return
	}
	b := c.bulk.Load()
	if b == nil {
		if b = (&bulk{rtt: c.handshake()}); !c.bulk.CompareAndSwap(nil, b) {
			return
		}
		c.s.counters.bulk.Add(1)
	}
	if c.written >= b.next {
		b.next = c.written + bulkEvery
		c.sizeSendBuffer(b)
	}
}

// handshake is the round trip of the handshake, which nothing of ours has prolonged; an
// hour if it is not known.
func (c *conn) handshake() time.Duration {
	if c.rtt == minisock.UnknownRTT {
		return time.Hour
	}
	return time.Duration(c.rtt) * time.Millisecond
}

// noBulk stands for a flow that has ended.
var noBulk = &bulk{next: math.MaxInt64} //nolint:gochecknoglobals // a constant, had Go such

// endBulk takes the flow off the count.
func (c *conn) endBulk() {
	if b := c.bulk.Swap(noBulk); b != nil && b != noBulk {
		c.s.counters.bulk.Add(-1)
	}
}

// sizeSendBuffer bounds the send buffer of a flow over a near path; over others,
// gVisor's own growth up to the config's bound is right.
func (c *conn) sizeSendBuffer(b *bulk) {
	var info tcpip.TCPInfoOption
	if c.ep.GetSockOpt(&info) != nil {
		return
	}
	b.rtt = min(b.rtt, info.RTT)
	if b.rtt >= farRTT || c.sendFixed {
		return
	}
	size := min(nearBuffer(c.s.counters.bulk.Load()), int64(c.s.opts.TCP.SendBuffer))
	if size != b.size {
		b.size = size
		c.ep.SocketOptions().SetSendBufferSize(size, true)
	}
}

// nearBuffer is the size for each of so many flows.
func nearBuffer(flows int64) int64 {
	return min(nearMost, max(nearLeast, nearBuffers/max(1, flows)))
}
