package netstack

import (
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack/minisock"
	"github.com/tungate/tungate/offload"
)

// An endpoint is made when its client's handshake is done, by an active open towards
// that client, which package minisock plays the other side of: no goroutine waits,
// and nothing is spent on who never finishes.

// openRetries and openRetryAfter are for an endpoint whose predecessor of the same
// flow is still registered: gVisor forgets it a moment after its last packet.
const (
	openRetries    = 7
	openRetryAfter = time.Millisecond // doubled each time
)

// Create implements link.Owner.
func (s *Stack) Create(r minisock.Result, pkt *stack.PacketBuffer) {
	a := s.attempts.get(r.Owner, r.Handle)
	if a == nil {
		a = s.lateAttempt(r.Handle)
	}
	if a == nil {
		s.flows.Fail(r.Handle)
		if pkt != nil {
			pkt.DecRef()
		}
		return
	}
	if pkt != nil {
		a.keep(pkt)
	}
	a.rtt = r.RTT
	a.open(0)
}

// lateAttempt is for a handshake that was done before anybody was asked. Those whose
// upstream is being dialled are bounded as half-open ones are, since the dead hosts of
// some must not take every socket.
func (s *Stack) lateAttempt(h minisock.Handle) *attempt {
	o, ok := s.flows.Open(h)
	if !ok {
		return nil
	}
	if s.counters.late.Add(1) > int64(s.opts.MaxHalfOpen) {
		s.counters.late.Add(-1)
		s.counters.lateLimit.Add(1)
		return nil
	}
	a := s.newAttempt(h, flow.ID{Protocol: flow.TCP, Client: o.Client, Destination: o.Destination}, true)
	if a == nil {
		s.counters.late.Add(-1)
	}
	return a
}

// Hold implements link.Owner.
func (s *Stack) Hold(r minisock.Result, pkt *stack.PacketBuffer) {
	if a := s.attempts.get(r.Owner, r.Handle); a != nil {
		a.keep(pkt)
		return
	}
	// It came before the attempt was known. The record counts it.
	if seg, ok := segmentOf(pkt); ok {
		s.flows.Resume(&seg, s.link.Now())
	}
	pkt.DecRef()
}

// segmentOf describes a packet that the stack has not seen yet.
func segmentOf(pkt *stack.PacketBuffer) (seg minisock.Segment, ok bool) {
	var p offload.Packet
	head := headers(pkt)
	if offload.Parse(&p, head, pkt.Size()) != offload.OK || p.Proto != offload.ProtoTCP || p.Fragment {
		return seg, false
	}
	return minisock.Segment{IP: head[:p.L3Len], TCP: head[p.L3Len : p.L3Len+p.L4Len], Payload: p.PayloadLen, Partial: true}, true
}

// keep lets a packet wait for the endpoint.
func (a *attempt) keep(pkt *stack.PacketBuffer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		pkt.DecRef()
		return
	}
	a.held = append(a.held, pkt)
}

// open makes the endpoint. It is connected when opened is called.
func (a *attempt) open(tries int) {
	if a.over() {
		return
	}
	err := a.connect()
	switch {
	case err == nil:
		a.establish()
	case inUse(err) && tries < openRetries:
		a.s.gv.Clock().AfterFunc(openRetryAfter<<tries, func() { a.open(tries + 1) })
	default:
		a.s.flows.Fail(a.h)
		a.fail(translate(err))
	}
}

// over reports whether the attempt has failed.
func (a *attempt) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err != nil
}

func inUse(err tcpip.Error) bool {
	switch err.(type) {
	case *tcpip.ErrPortInUse, *tcpip.ErrBadLocalAddress:
		return true
	}
	return false
}

// connect begins the active open: the stack's SYN has come out when it returns.
func (a *attempt) connect() tcpip.Error {
	s := a.s
	c := &conn{s: s, id: a.id, h: a.h, rtt: a.rtt}
	ep, err := s.gv.NewEndpoint(tcp.ProtocolNumber, networkProtocol(a.id.Client.Addr()), &c.wq)
	if err != nil {
		return err
	}
	c.ep = ep
	ep.SocketOptions().SetReuseAddress(true)
	s.tune(ep)
	if err := ep.Bind(fullAddress(a.id.Destination)); err != nil {
		ep.Close()
		return err
	}
	c.entry.Init(c, watched)
	c.wq.EventRegister(&c.entry)
	err = ep.Connect(fullAddress(a.id.Client))
	if _, ok := err.(*tcpip.ErrConnectStarted); !ok && err != nil {
		c.wq.EventUnregister(&c.entry)
		ep.Close()
		return err
	}
	a.mu.Lock()
	a.conn = c
	a.mu.Unlock()
	// News counts from here on: the client's answer is still to be given.
	c.attempt.Store(a)
	return nil
}

// establish gives the stack the client's answer to its SYN, and then what the client
// has sent meanwhile.
func (a *attempt) establish() {
	s := a.s
	b, ok := s.flows.Establish(a.h, s.link.Now(), make([]byte, 0, maxSYNACK))
	if !ok || a.over() {
		a.discard() // also if it failed before there was one
		a.fail(unix.ECONNRESET)
		return
	}
	s.link.Inject(stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)}))
	a.catchUp()
}

// catchUp gives the stack what waits, and opens the way for what follows.
func (a *attempt) catchUp() {
	for range 10 {
		if a.over() {
			return
		}
		a.resume()
		ok, _ := a.s.flows.Ready(a.h, a.s.link.Now())
		if ok || a.s.flows.State(a.h) != minisock.Creating {
			return
		}
		runtime.Gosched() // another queue's reader is about to let a packet wait
	}
	a.s.gv.Clock().AfterFunc(openRetryAfter, a.catchUp)
}

// maxSYNACK is IPv6's header and TCP's with all options.
const maxSYNACK = header.IPv6MinimumSize + header.TCPHeaderMaximumSize

// resume gives the stack the packets that wait.
func (a *attempt) resume() {
	a.mu.Lock()
	held := a.held
	a.held = nil
	a.mu.Unlock()
	for _, pkt := range held {
		seg, ok := segmentOf(pkt)
		if ok && a.s.flows.Resume(&seg, a.s.link.Now()).Verdict == minisock.Pass {
			a.s.link.Inject(pkt)
			continue
		}
		pkt.DecRef()
	}
}

// headers is the beginning of a packet that the stack has not seen yet, in its own
// memory.
func headers(pkt *stack.PacketBuffer) []byte {
	const most = header.IPv6MinimumSize + header.TCPHeaderMaximumSize
	b, _ := pkt.Data().PullUp(min(pkt.Data().Size(), most))
	return b
}

// opened runs when news of the endpoint being connected came. It is no one else's
// yet.
func (a *attempt) opened() {
	a.mu.Lock()
	c := a.conn
	a.mu.Unlock()
	if c.attempt.Load() == nil {
		return
	}
	r := c.Readiness()
	broken := c.Broken()
	switch {
	case !broken && r&(flow.EventOut|flow.EventHup) == 0:
		return
	case !c.attempt.CompareAndSwap(a, nil):
		return // without a loop it may run twice
	case broken:
		c.discard()
		a.s.flows.Fail(a.h)
		a.fail(unix.ECONNRESET)
		return
	}
	a.mu.Lock()
	failed := a.err != nil // just now
	a.ready = !failed
	done, late := a.done, !a.answered
	a.mu.Unlock()
	if failed {
		c.discard()
		return
	}
	a.s.counters.established.Add(1)
	switch {
	case done != nil:
		a.leave()
		a.give(done)
	case late && !a.s.serve(a):
		c.Abort()
	}
}

// post lets opened run. It is called under the stack's locks.
func (a *attempt) post() {
	if a.s.loop == nil || !a.s.loop.Post(&a.task) {
		go a.opened()
	}
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: address(a.Addr()), Port: a.Port()}
}

func client(p *offload.Packet) netip.AddrPort      { return netip.AddrPortFrom(p.Src, p.SrcPort) }
func destination(p *offload.Packet) netip.AddrPort { return netip.AddrPortFrom(p.Dst, p.DstPort) }

// calibrate finds out what the stack announces in its SYNs, which is what clients
// are to be told before there is an endpoint.
func (s *Stack) calibrate() tcpip.Error {
	var local minisock.Local
	for _, id := range []flow.ID{
		{Client: netip.MustParseAddrPort("192.0.2.1:9"), Destination: netip.MustParseAddrPort("192.0.2.2:9")},
		{Client: netip.MustParseAddrPort("[2001:db8::1]:9"), Destination: netip.MustParseAddrPort("[2001:db8::2]:9")},
	} {
		v6 := id.Client.Addr().Is6()
		if v6 && s.link.MTU() < header.IPv6MinimumMTU {
			continue // there is none on such a link
		}
		s.link.Look(func(t []byte) bool {
			h := header.TCP(t)
			if h.SourcePort() != id.Destination.Port() || h.DestinationPort() != id.Client.Port() {
				return false // a connection's
			}
			o := minisock.ReadSYN(t)
			if v6 {
				local.MSS6 = o.MSS
			} else {
				local.MSS4 = o.MSS
			}
			local.Window = h.WindowSize()
			local.WindowScale = uint8(max(0, o.WindowScale))
			return true
		})
		err := s.throwAway(id)
		s.link.Look(nil)
		if err != nil {
			return err
		}
	}
	s.flows.SetLocal(local)
	return nil
}

// throwAway begins a connection for the sake of its SYN.
func (s *Stack) throwAway(id flow.ID) tcpip.Error {
	c := &conn{}
	ep, err := s.gv.NewEndpoint(tcp.ProtocolNumber, networkProtocol(id.Client.Addr()), &c.wq)
	if err != nil {
		return err
	}
	defer ep.Abort()
	ep.SocketOptions().SetReuseAddress(true)
	s.tune(ep)
	if err := ep.Bind(fullAddress(id.Destination)); err != nil {
		return err
	}
	err = ep.Connect(fullAddress(id.Client))
	if _, ok := err.(*tcpip.ErrConnectStarted); ok {
		return nil
	}
	return err
}
