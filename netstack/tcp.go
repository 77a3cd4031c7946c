package netstack

import (
	"fmt"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/flow"
)

// timeWait is how long an endpoint stays in TIME_WAIT. gVisor hands a SYN that
// reuses such a tuple only to a listening endpoint and drops it where a Forwarder
// is used, so RFC 9293's minutes would lock clients out of their own ports; and
// between the device's two sides no segment is 50 ms old.
const timeWait = 50 * time.Millisecond

// configureTCP sets the protocol's options.
func (s *Stack) configureTCP() error {
	o := s.opts.TCP
	sack := tcpip.TCPSACKEnabled(true)
	cc := tcpip.CongestionControlOption(o.CongestionControl)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(tcp.DefaultReceiveBufferSize, o.ReceiveBuffer), Max: o.ReceiveBuffer}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(tcp.DefaultSendBufferSize, o.SendBuffer), Max: o.SendBuffer}
	for _, opt := range []tcpip.SettableTransportProtocolOption{&sack, &cc, &wait, &moderate, &rcv, &snd} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("netstack: TCP option %T: %w", opt, translate(err))
		}
	}
	return nil
}

// serve runs one connection attempt; the Forwarder gave it a goroutine.
func (s *Stack) serve(fr *tcp.ForwarderRequest) {
	s.mu.Lock()
	if s.closed || s.draining.Load() {
		s.mu.Unlock()
		fr.Complete(true)
		return
	}
	s.handlers.Add(1)
	s.mu.Unlock()
	defer s.handlers.Done()

	if s.counters.established.Load() >= int64(s.opts.MaxConnections) {
		s.counters.connLimit.Add(1)
		fr.Complete(true)
		return
	}
	s.counters.halfOpen.Add(1)
	id := fr.ID()
	r := &request{s: s, fr: fr, id: flow.ID{
		Protocol:    flow.TCP,
		Client:      addrPort(id.RemoteAddress, id.RemotePort),
		Destination: addrPort(id.LocalAddress, id.LocalPort),
	}}
	// A handler that answered nothing would leak its slot, and 4,096 of those
	// stop the gateway.
	defer r.complete(false)
	s.handler.HandleTCP(s.ctx, r)
}

// request is a flow.Request over the Forwarder's.
type request struct {
	s    *Stack
	fr   *tcp.ForwarderRequest
	id   flow.ID
	once sync.Once
}

func (r *request) ID() flow.ID { return r.id }

// complete gives the Forwarder its slot back, once.
func (r *request) complete(reset bool) (first bool) {
	r.once.Do(func() {
		first = true
		r.fr.Complete(reset)
		r.s.counters.halfOpen.Add(-1)
	})
	return first
}

func (r *request) Refuse() {
	if r.complete(true) {
		r.s.counters.refused.Add(1)
	}
}

func (r *request) Drop() {
	if r.complete(false) {
		r.s.counters.dropped.Add(1)
	}
}

func (r *request) Accept() (flow.Conn, error) {
	if r.s.ctx.Err() != nil {
		r.complete(true)
		return nil, &flow.Error{Op: "accept", ID: r.id, Err: net.ErrClosed}
	}
	c := &conn{s: r.s, id: r.id}
	ep, err := r.fr.CreateEndpoint(&c.wq)
	if !r.complete(false) {
		if ep != nil {
			ep.Abort()
		}
		return nil, &flow.Error{Op: "accept", ID: r.id, Err: errAnswered}
	}
	if err != nil {
		r.s.counters.failed.Add(1)
		return nil, &flow.Error{Op: "accept", ID: r.id, Err: translate(err)}
	}
	r.s.counters.accepted.Add(1)
	r.s.counters.established.Add(1)
	c.ep = ep
	c.entry.Init(c, waiter.EventIn|waiter.EventOut|waiter.EventErr|waiter.EventHUp|waiter.EventRdHUp)
	r.s.tune(ep)
	c.wq.EventRegister(&c.entry)
	return c, nil
}

// tune sets the options that gVisor keeps per endpoint.
func (s *Stack) tune(ep tcpip.Endpoint) {
	o := s.opts.TCP
	// These fail only for values that Validate refused.
	timeout := tcpip.TCPUserTimeoutOption(o.UserTimeout)
	_ = ep.SetSockOpt(&timeout)
	if o.KeepaliveIdle < 0 {
		return
	}
	idle := tcpip.KeepaliveIdleOption(o.KeepaliveIdle)
	interval := tcpip.KeepaliveIntervalOption(o.KeepaliveInterval)
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, o.KeepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}
