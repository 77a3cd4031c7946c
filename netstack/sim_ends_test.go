package netstack_test

import (
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/flow"
)

// begin starts the client of a script.
func (s *sim) begin(c *script, tries int) {
	p := &player{
		s: s, c: c, name: c.name + " client", part: c.client,
		out: c.streams[up], in: c.streams[down], begun: s.clock.elapsed(),
	}
	conn, err := s.connect(p)
	if conn != nil {
		p.conn = conn
		c.played = p
		if c.vanish > 0 {
			s.later(c.vanish, func() { s.wire.dead[c.flow] = true })
		}
		return
	}
	if tries == 0 {
		s.fail("%s: connect: %v", c.name, err)
		return
	}
	// The endpoint before it waits for the end of its connection.
	s.later(50*time.Millisecond, func() { s.begin(c, tries-1) })
}

// connect sends a SYN, or returns why not.
func (s *sim) connect(p *player) (*clientConn, tcpip.Error) {
	c := p.c
	conn := &clientConn{}
	network := header.IPv4ProtocolNumber
	if c.flow.src.Addr().Is6() {
		network = header.IPv6ProtocolNumber
	}
	ep, err := s.client.NewEndpoint(tcp.ProtocolNumber, network, &conn.wq)
	if err != nil {
		return nil, err
	}
	conn.ep = ep
	idle, interval, timeout := tcpip.KeepaliveIdleOption(30*time.Second), tcpip.KeepaliveIntervalOption(10*time.Second), tcpip.TCPUserTimeoutOption(2*time.Minute)
	for _, o := range []tcpip.SettableSocketOption{&idle, &interval, &timeout} {
		_ = ep.SetSockOpt(o)
	}
	ep.SocketOptions().SetReuseAddress(true)
	conn.entry.Init(p, waiter.EventIn|waiter.EventOut|waiter.EventErr|waiter.EventHUp|waiter.EventRdHUp)
	conn.wq.EventRegister(&conn.entry)
	if err = ep.Bind(simAddress(c.flow.src)); err == nil {
		s.current[c.flow] = c
		err = ep.Connect(simAddress(c.flow.dst))
	}
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
		conn.wq.EventUnregister(&conn.entry)
		ep.Close()
		return nil, err
	}
	return conn, nil
}

func simAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// simHandler is the handler that has a goroutine for each attempt.
type simHandler struct{ s *sim }

func (h simHandler) HandleDatagram(flow.DatagramWriter, flow.ID, []byte) bool { return false }

func (h simHandler) HandleTCP(ctx context.Context, req flow.Request) {
	answers := make(chan *script, 1)
	h.s.do(func() { h.s.dial(req.ID(), func(c *script) { answers <- c }) })
	select {
	case <-ctx.Done():
	case c := <-answers:
		if c.reply(req) {
			conn, err := req.Accept()
			h.s.do(func() { h.s.accepted(c, conn, err) })
		}
	}
}

// simStarter is the one that needs none.
type simStarter struct{ simHandler }

func (h simStarter) StartTCP(_ context.Context, req flow.LaterRequest) {
	h.s.do(func() {
		h.s.dial(req.ID(), func(c *script) {
			if c.reply(req) {
				req.AcceptLater(func(conn flow.Conn, err error) {
					h.s.do(func() { h.s.accepted(c, conn, err) })
				})
			}
		})
	})
}

// dial answers as the flow's script says, when it says.
func (s *sim) dial(id flow.ID, then func(*script)) {
	c := s.wire.last[tuple{id.Client, id.Destination}]
	if c == nil {
		s.fail("an attempt of nobody: %v", id)
		return
	}
	s.later(c.dial, func() { then(c) })
}

// reply gives the answers that are no.
func (c *script) reply(req flow.Request) (accepted bool) {
	switch c.answer {
	case accept:
	case refuse:
		req.Refuse()
	case drop:
		req.Drop()
	}
	return c.answer == accept
}

// accepted begins the server of a script.
func (s *sim) accepted(c *script, conn flow.Conn, err error) {
	if err != nil {
		s.logf("%s: accept: %v", c.name, err)
		return
	}
	// What was dialled for a SYN of old may have come to serve the next.
	if now := s.wire.last[c.flow]; len(c.accepted) > 0 && now != nil && now.answer == accept {
		c = now
	}
	p := &player{
		s: s, c: c, name: c.name + " server", part: c.server, conn: conn,
		out: c.streams[down], in: c.streams[up], begun: s.clock.elapsed(),
	}
	c.accepted = append(c.accepted, p)
	conn.SetNotifier(p)
	p.play()
}

// ended begins what follows a connection of which both ends are over.
func (s *sim) ended(p *player) {
	s.logf("%.6f %s is over: sent %d received %d eof %v closed %v error %v", s.clock.elapsed().Seconds(), p.name, p.sent, p.received, p.eof, p.closed, p.err)
	if c := p.c; c.over() && c.again != nil && !c.followed {
		c.followed = true
		s.later(c.again.start, func() { s.begin(c.again, 20_000) })
	}
}
