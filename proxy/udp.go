package proxy

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// reapEvery is how often idle sessions are looked for; a session outlives its
// timeout by so much at most.
const reapEvery = time.Second

// maxDatagram holds the largest UDP payload (RFC 768: the length field is 16 bits).
const maxDatagram = 65535

// datagrams holds receive buffers for the length of one read.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// sessions are the UDP flows that are alive. The table and the order of use are
// guarded by mu; a session's own calls are not.
type sessions struct {
	d        *direct
	counters flowCounters
	own      ownSockets // of every session

	mu     sync.Mutex
	byID   map[flow.ID]*session
	order  list.List // of *session, longest idle first
	closed bool
	wg     sync.WaitGroup // receive loops
}

// session is one UDP flow with its connected upstream socket.
type session struct {
	id    flow.ID
	to    netip.AddrPort
	local netip.AddrPort // of sock
	sock  *upstream
	w     flow.DatagramWriter
	start time.Time

	// Guarded by sessions.mu.
	elem     *list.Element // nil once ended
	last     time.Time
	up, down uint64
}

func newSessions(d *direct) *sessions {
	return &sessions{d: d, byID: make(map[flow.ID]*session)}
}

// send passes one datagram of a client on; false means nobody is there.
func (t *sessions) send(w flow.DatagramWriter, id flow.ID, payload []byte) bool {
	s, ok := t.touch(id, len(payload))
	if !ok {
		var err error
		if s, err = t.open(w, id); err != nil {
			return false
		}
		t.touch(id, len(payload))
	}
	errno := s.write(payload)
	if ofEarlier(errno) {
		if errno == unix.ECONNREFUSED {
			w.RejectDatagram(id)
		}
		errno = s.write(payload)
	}
	if errno != 0 {
		t.counters.datagramsPassed.Add(1)
		return true
	}
	t.counters.bytesUp.Add(uint64(len(payload)))
	return true
}

// touch finds a session and makes it the most recently used.
func (t *sessions) touch(id flow.ID, n int) (*session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.byID[id]
	if ok {
		s.last = time.Now()
		s.up += uint64(n)
		t.order.MoveToBack(s.elem)
	}
	return s, ok
}

// ofEarlier reports whether errno may be what ICMP said of an earlier datagram. A
// connected socket tells that once, to the next call, instead of doing the call's
// work (udp(7)); the socket is as good as before.
func ofEarlier(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EACCES, unix.EPROTO, unix.EMSGSIZE:
		return true
	}
	return false
}

// open makes a session, or returns the one that another goroutine just made.
func (t *sessions) open(w flow.DatagramWriter, id flow.ID) (*session, error) {
	s := &session{id: id, w: w, start: time.Now()}
	result, err := t.connect(s)
	t.counters.dials[result].Add(1)
	if err != nil {
		t.d.trace(Record{ID: id, Upstream: s.to, Result: result, Err: err})
		return nil, err
	}
	s.last = s.start
	in := t.add(s)
	if in != s {
		_ = s.sock.f.Close()
	}
	if in == nil {
		return nil, context.Canceled
	}
	return in, nil
}

// connect gives s its socket.
func (t *sessions) connect(s *session) (DialResult, error) {
	var err error
	s.to, err = t.d.target(s.id)
	if err == nil && t.own.has(s.id.Client) {
		err = errLoop
	}
	if err != nil {
		return DialDenied, err
	}
	s.sock, s.local, err = t.d.datagramSocket(s.to)
	return dialResult(err), err
}

// datagramSocket makes a UDP socket connected to dst, and returns its own address,
// too.
func (d *direct) datagramSocket(dst netip.AddrPort) (*upstream, netip.AddrPort, error) {
	u, err := d.dial.socket(dst, unix.SOCK_DGRAM)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	local, err := u.startConnect(dst)
	if err != nil {
		_ = u.f.Close()
		return nil, local, err
	}
	return u, local, nil
}

// add enters s into the table and starts its receive loop. It returns the session
// of that flow, which is another if there is one, or nil after shutdown.
func (t *sessions) add(s *session) *session {
	t.mu.Lock()
	if other := t.byID[s.id]; other != nil || t.closed {
		t.mu.Unlock()
		return other
	}
	var evicted *session
	if len(t.byID) >= t.d.opts.UDP.MaxSessions {
		evicted = t.order.Front().Value.(*session)
		t.removeLocked(evicted)
	}
	s.elem = t.order.PushBack(s)
	t.byID[s.id] = s
	t.own.add(s.local)
	t.counters.begin()
	t.wg.Go(func() { t.receive(s) })
	t.mu.Unlock()
	if evicted != nil {
		t.counters.sessionLimit.Add(1)
		t.close(evicted, flow.ReasonEvicted)
	}
	return s
}

// removeLocked takes s out of the table; false if it was out already.
func (t *sessions) removeLocked(s *session) bool {
	if s.elem == nil {
		return false
	}
	t.order.Remove(s.elem)
	s.elem = nil
	delete(t.byID, s.id)
	return true
}

// end removes and closes s, once.
func (t *sessions) end(s *session, r flow.CloseReason) {
	t.mu.Lock()
	ok := t.removeLocked(s)
	t.mu.Unlock()
	if ok {
		t.close(s, r)
	}
}

// close closes a session that was removed, which ends its receive loop.
func (t *sessions) close(s *session, r flow.CloseReason) {
	t.own.remove(s.local) // before the next socket may have that address
	_ = s.sock.f.Close()
	t.counters.end(r)
	t.d.trace(Record{ID: s.id, Upstream: s.to, Reason: r, Up: s.up, Down: s.down, Duration: time.Since(s.start)})
}

// write sends one datagram without waiting.
func (s *session) write(payload []byte) unix.Errno {
	var errno unix.Errno
	err := s.sock.control(func(fd int) error {
		var p unsafe.Pointer
		if len(payload) > 0 {
			p = unsafe.Pointer(&payload[0]) //nolint:gosec // the kernel reads payload alone
		}
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(p), uintptr(len(payload)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		return nil
	})
	if err != nil {
		return unix.EBADF
	}
	return errno
}

// receiveBatch bounds the datagrams of one pass over a socket. Closing it waits for
// the pass, and is done by readers of the device, too.
const receiveBatch = 64

// receive passes answers to the client until the session is closed or its socket
// fails.
func (t *sessions) receive(s *session) {
	failed := false
	pump := func(fd uintptr) bool {
		b := datagrams.Get().(*[maxDatagram]byte)
		defer datagrams.Put(b)
		for range receiveBatch {
			n, e := recv(fd, b[:])
			switch {
			case e == 0:
				t.answer(s, b[:n])
			case e == unix.EAGAIN:
				return false
			case e == unix.ECONNREFUSED:
				s.w.RejectDatagram(s.id)
			case ofEarlier(e):
			default:
				failed = true
				return true
			}
		}
		return true
	}
	for !failed {
		if err := s.sock.rc.Read(pump); err != nil {
			return // closed
		}
	}
	t.end(s, flow.ReasonError)
}

// answer sends one datagram to the client. It is counted before it goes, so that
// who has seen it finds it counted.
func (t *sessions) answer(s *session, payload []byte) {
	n := uint64(len(payload))
	t.mu.Lock()
	if s.elem == nil {
		t.mu.Unlock()
		return
	}
	s.last = time.Now()
	s.down += n
	t.order.MoveToBack(s.elem)
	t.mu.Unlock()
	t.counters.bytesDown.Add(n)
	if err := s.w.WriteDatagram(s.id, s.id.Destination, payload); err == nil {
		return
	}
	t.counters.bytesDown.Add(-n)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.elem != nil {
		s.down -= n
	}
}

// run ends idle sessions until ctx is done, then all of them.
func (t *sessions) run(ctx context.Context) error {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			t.reap(now)
		case <-ctx.Done():
			t.shutdown()
			return nil
		}
	}
}

// timeout returns how long s may be idle.
func (t *sessions) timeout(s *session) time.Duration {
	if s.id.Destination.Port() == 53 {
		return t.d.opts.UDP.DNSTimeout
	}
	return t.d.opts.UDP.IdleTimeout
}

// reap ends what has been idle for too long at now.
func (t *sessions) reap(now time.Time) {
	least := min(t.d.opts.UDP.IdleTimeout, t.d.opts.UDP.DNSTimeout)
	var idle []*session
	t.mu.Lock()
	for e := t.order.Front(); e != nil; {
		s := e.Value.(*session)
		e = e.Next()
		age := now.Sub(s.last)
		if age < least {
			break // the rest was used later
		}
		if age >= t.timeout(s) && t.removeLocked(s) {
			idle = append(idle, s)
		}
	}
	t.mu.Unlock()
	for _, s := range idle {
		t.close(s, flow.ReasonIdle)
	}
}

// shutdown ends every session and waits for their loops.
func (t *sessions) shutdown() {
	t.mu.Lock()
	t.closed = true
	all := make([]*session, 0, len(t.byID))
	for _, s := range t.byID {
		t.removeLocked(s)
		all = append(all, s)
	}
	t.mu.Unlock()
	for _, s := range all {
		t.close(s, flow.ReasonShutdown)
	}
	t.wg.Wait()
}
