package netstack

import (
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// gVisor lets a connection's send buffer grow with the congestion window, which on a
// path that loses nothing, like that to the next namespace or virtual machine, is
// without end. But what lies there has left the processor's caches when its turn
// comes, and to fetch it again costs more than all the rest: eight bulk flows took
// 0.45 s of CPU a GB with 4 MiB each, and 0.25 with half a MiB (docs/adr/0022). So a
// flow that has become a bulk one gets what its path can use, and no more.
const (
	// bulkAfter is when a flow is one, bulkEvery how often its path is measured
	// again, in bytes.
	bulkAfter = 1 << 20
	bulkEvery = 8 << 20

	// pathRate is what a path is believed to carry: a buffer holds what it
	// delivers in a round trip, or the bound of the config from 2 ms on.
	pathRate = 2 << 30 // bytes a second

	// nearBuffers is what all flows over near paths share, down to nearLeast each.
	nearBuffers = 4 << 20
	nearLeast   = 128 << 10
	nearMost    = 1 << 20
)

// bulk is what a connection knows of its path when it has carried much.
type bulk struct {
	rtt  time.Duration // the least seen
	next int64         // measured again when so many bytes were sent
	size int64         // of the buffer; 0 is gVisor's affair
}

// sent notes n bytes that the endpoint took, and sizes its buffer now and then.
func (c *conn) sent(n int64) {
	if c.written += n; c.written < bulkAfter {
		return
	}
	b := c.bulk.Load()
	if b == nil {
		if b = (&bulk{rtt: time.Hour}); !c.bulk.CompareAndSwap(nil, b) {
			return
		}
		c.s.counters.bulk.Add(1)
	}
	if c.written >= b.next {
		b.next = c.written + bulkEvery
		c.sizeSendBuffer(b)
	}
}

// noBulk stands for a flow that has ended.
var noBulk = &bulk{next: math.MaxInt64} //nolint:gochecknoglobals // a constant, had Go such

// endBulk takes the flow off the count.
func (c *conn) endBulk() {
	if b := c.bulk.Swap(noBulk); b != nil && b != noBulk {
		c.s.counters.bulk.Add(-1)
	}
}

// sizeSendBuffer bounds the send buffer, unless the path needs as much as the config
// allows: gVisor's own growth ends there.
func (c *conn) sizeSendBuffer(b *bulk) {
	var info tcpip.TCPInfoOption
	if c.ep.GetSockOpt(&info) != nil {
		return
	}
	b.rtt = min(b.rtt, info.RTT)
	most := int64(c.s.opts.TCP.SendBuffer)
	if size := sendBuffer(b.rtt, c.s.counters.bulk.Load()); size < most && size != b.size {
		b.size = size
		c.ep.SocketOptions().SetSendBufferSize(size, true)
	}
}

// sendBuffer is the size for a path with this round trip, when so many flows carry
// much.
func sendBuffer(rtt time.Duration, flows int64) int64 {
	share := min(nearMost, max(nearLeast, nearBuffers/max(1, flows)))
	return max(share, int64(rtt.Seconds()*pathRate))
}
