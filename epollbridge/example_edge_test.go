package epollbridge_test

import (
	"bytes"
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// edgeServer echoes what it reads, as levelServer does, but edge-triggered: each
// connection is registered once for both directions and never modified. For that
// an event obliges to go on until nothing more can be done, because it is not
// repeated.
type edgeServer struct {
	poller   *epollbridge.Poller
	listener tcpip.Endpoint
	source   epollbridge.Source
	reg      epollbridge.Registration
	conns    map[uint64]*edgeConn
	last     uint64
}

type edgeConn struct {
	ep     tcpip.Endpoint
	source epollbridge.Source
	reg    epollbridge.Registration
	unsent []byte
}

// run serves until the Poller is closed.
func (s *edgeServer) run() error {
	if err := s.poller.Add(&s.reg, &s.source, epollbridge.In|epollbridge.Edge, 0); err != nil {
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
				for s.accept() {
				}
			} else if c := s.conns[e.Data]; c != nil && !c.serve() {
				_ = s.poller.Delete(&c.reg)
				c.ep.Close()
				delete(s.conns, e.Data)
			}
		}
	}
}

func (s *edgeServer) accept() bool {
	ep, wq, err := s.listener.Accept(nil)
	if err != nil {
		return false
	}
	s.last++
	c := &edgeConn{ep: ep, source: epollbridge.Source{Endpoint: ep, Queue: wq}}
	s.conns[s.last] = c
	// What has arrived already is reported, though it was notified to nobody.
	_ = s.poller.Add(&c.reg, &c.source, epollbridge.In|epollbridge.Out|epollbridge.Edge, s.last)
	return true
}

// serve writes and reads until either would block. It reports whether the
// connection goes on.
func (c *edgeConn) serve() bool {
	for {
		for len(c.unsent) > 0 {
			n, err := c.ep.Write(bytes.NewReader(c.unsent), tcpip.WriteOptions{})
			c.unsent = c.unsent[n:]
			if err != nil {
				_, again := err.(*tcpip.ErrWouldBlock)
				return again
			}
		}
		var w bytes.Buffer
		if _, err := c.ep.Read(&w, tcpip.ReadOptions{}); err != nil {
			_, again := err.(*tcpip.ErrWouldBlock)
			return again
		}
		c.unsent = w.Bytes()
	}
}

// An echo server with edge-triggered events.
func Example_edge() {
	l := makeLab()
	defer l.close()
	addr := tcpip.FullAddress{NIC: 1, Addr: serverAddr, Port: 7}
	wq := new(waiter.Queue)
	s := &edgeServer{poller: epollbridge.New(), conns: map[uint64]*edgeConn{}, listener: l.listener(addr, wq)}
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
