package baseline

import (
	"io"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/flow"
)

// Conn is a connection with those calls of a flow.Conn that bench makes, to the same
// contracts.
type Conn struct {
	ep       tcpip.Endpoint
	wq       waiter.Queue
	entry    waiter.Entry
	port     uint16
	notifier atomic.Pointer[flow.Notifier]
}

// Port is the port that the client connected to.
func (c *Conn) Port() uint16 { return c.port }

// SetNotifier registers n.
func (c *Conn) SetNotifier(n flow.Notifier) { c.notifier.Store(&n) }

// NotifyEvent implements waiter.EventListener.
func (c *Conn) NotifyEvent(waiter.EventMask) {
	if n := c.notifier.Load(); n != nil {
		(*n).Notify()
	}
}

// ReadTo passes received bytes to w, which takes them all.
func (c *Conn) ReadTo(w io.Writer) (int64, error) {
	res, err := c.ep.Read(w, tcpip.ReadOptions{})
	if res.Count > 0 {
		c.ep.ModerateRecvBuf(res.Count)
	}
	return int64(res.Count), translate("read", err)
}

// WriteFrom queues up to p.Len() bytes.
func (c *Conn) WriteFrom(p flow.Payload) (int64, error) {
	n, err := c.ep.Write(p, tcpip.WriteOptions{})
	return n, translate("write", err)
}

// Close ends both directions.
func (c *Conn) Close() error {
	c.wq.EventUnregister(&c.entry)
	c.ep.Close()
	return nil
}

func translate(op string, err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrWouldBlock:
		return flow.ErrWouldBlock
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	}
	return fail(op, err)
}
