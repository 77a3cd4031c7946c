package epollbridge_test

import (
	"bytes"
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// levelServer echoes what it reads, many connections in one goroutine, none of
// which costs a buffer while it is idle. It is level-triggered: it does a little
// for each event and is told again if that was not all.
type levelServer struct {
	poller   *epollbridge.Poller
	listener tcpip.Endpoint
	source   epollbridge.Source
	reg      epollbridge.Registration
	conns    map[uint64]*levelConn // by the data of their registrations
	last     uint64
}

type levelConn struct {
	id      uint64
	ep      tcpip.Endpoint
	source  epollbridge.Source
	reg     epollbridge.Registration
	unsent  []byte
	waiting epollbridge.Events // what reg waits for
}

// interest is a function of the connection's state and of nothing else.
func (c *levelConn) interest() epollbridge.Events {
	if len(c.unsent) > 0 {
		return epollbridge.Out // and read no more until it is sent
	}
	return epollbridge.In
}

// run serves until the Poller is closed.
func (s *levelServer) run() error {
	if err := s.poller.Add(&s.reg, &s.source, epollbridge.In, 0); err != nil {
		return err
	}
	events := make([]epollbridge.Event, 64)
	for {
		n, err := s.poller.Wait(events, -1)
		if err != nil {
			return err
		}
		for _, e := range events[:n] {
			if e.Data == 0 {
				s.accept()
			} else if c := s.conns[e.Data]; c != nil && !c.serve() {
				s.end(c)
			} else if c != nil && c.interest() != c.waiting {
				c.waiting = c.interest()
				_ = s.poller.Modify(&c.reg, c.waiting, c.id)
			}
		}
	}
}

// accept takes one connection; if there are more, the listener is still ready.
func (s *levelServer) accept() {
	ep, wq, err := s.listener.Accept(nil)
	if err != nil {
		return
	}
	s.last++
	c := &levelConn{id: s.last, ep: ep, source: epollbridge.Source{Endpoint: ep, Queue: wq}}
	c.waiting = c.interest()
	s.conns[c.id] = c
	_ = s.poller.Add(&c.reg, &c.source, c.waiting, c.id)
}

// end deletes first and closes then, so that no callback runs in Close.
func (s *levelServer) end(c *levelConn) {
	_ = s.poller.Delete(&c.reg)
	c.ep.Close()
	delete(s.conns, c.id)
}

// serve reads once, or writes once, and reports whether the connection goes on.
func (c *levelConn) serve() bool {
	if len(c.unsent) == 0 {
		buf := make([]byte, 4096)
		w := tcpip.SliceWriter(buf)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{})
		if err != nil {
			_, again := err.(*tcpip.ErrWouldBlock)
			return again
		}
		c.unsent = buf[:res.Count]
	}
	n, err := c.ep.Write(bytes.NewReader(c.unsent), tcpip.WriteOptions{})
	c.unsent = c.unsent[n:]
	_, again := err.(*tcpip.ErrWouldBlock)
	return err == nil || again
}

// An echo server with level-triggered events.
func Example_level() {
	l := makeLab()
	defer l.close()
	addr := tcpip.FullAddress{NIC: 1, Addr: serverAddr, Port: 7}
	wq := new(waiter.Queue)
	s := &levelServer{poller: epollbridge.New(), conns: map[uint64]*levelConn{}, listener: l.listener(addr, wq)}
	s.source = epollbridge.Source{Endpoint: s.listener, Queue: wq}
	done := make(chan error)
	go func() { done <- s.run() }()

	fmt.Println(l.echo(addr, "hello"))
	fmt.Println(len(l.echo(addr, string(make([]byte, 1<<20)))), "bytes came back")

	s.poller.Close()
	fmt.Println(<-done)
	_ = s.poller.Delete(&s.reg)
	s.listener.Close()
	// Output:
	// hello
	// 1048576 bytes came back
	// epollbridge: use of closed poller
}
