package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
)

// sessions are the UDP flows that are alive. Whoever reads the device finds or
// makes a flow's session and sends on its socket; answers, timeouts and every end
// are the loop's.
type sessions struct {
	d        *direct
	counters flowCounters
	own      ownSockets // of every session
	start    time.Time  // what session.last counts from

	batch *datagramBatch // the loop's own; nil until the first session

	// mu is held for some loads and stores, never during a system call.
	mu     sync.Mutex
	byID   map[flow.ID]*session
	used   session       // head of the ring of all sessions, longest idle first
	loop   *loop.Loop    // nil until it is needed, unless NewOnLoop set it
	shared bool          // others run loop
	begun  chan struct{} // closed when loop is set
	closed bool
}

func newSessions(d *direct) *sessions {
	t := &sessions{d: d, start: time.Now(), byID: make(map[flow.ID]*session), begun: make(chan struct{})}
	t.used.prev, t.used.next = &t.used, &t.used
	return t
}

// send passes one datagram of a client on; false means nobody is there.
func (t *sessions) send(w flow.DatagramWriter, id flow.ID, payload []byte) bool {
	s := t.find(id, len(payload))
	if s == nil {
		var err error
		if s, err = t.open(w, id, len(payload)); err != nil {
			return false
		}
	}
	errno := s.send(payload)
	if ofEarlier(errno) {
		if errno == unix.ECONNREFUSED {
			w.RejectDatagram(id)
		}
		errno = s.send(payload)
	}
	if errno != 0 {
		t.counters.datagramsPassed.Add(1)
		t.count(s, -len(payload), 0)
	}
	return true
}

// find returns a flow's session, nil if there is none, with n bytes up counted.
// They are counted before they go, so that who has seen them finds them counted.
func (t *sessions) find(id flow.ID, n int) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s != nil {
		t.useLocked(s)
		t.countLocked(s, n, 0)
	}
	return s
}

// useLocked makes s the most recently used.
func (t *sessions) useLocked(s *session) {
	s.last = time.Since(t.start)
	if t.used.prev != s {
		s.unlink()
		s.link(&t.used)
	}
}

// count adds payload bytes to s and to the sum; negative ones are taken back.
func (t *sessions) count(s *session, up, down int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked(s, up, down)
}

func (t *sessions) countLocked(s *session, up, down int) {
	u, d := uint64(up), uint64(down) // negative ones are subtracted, modulo 2^64
	s.up += u
	s.down += d
	t.counters.bytesUp.Add(u)
	t.counters.bytesDown.Add(d)
}

// open makes a session with n bytes up counted, or returns the one that another
// goroutine just made.
func (t *sessions) open(w flow.DatagramWriter, id flow.ID, n int) (*session, error) {
	s := &session{t: t, id: id, w: w, fd: -1, start: time.Now()}
	s.task.Init(s)
	s.source.Init(s)
	s.timer.Init(s)
	result, err := t.connect(s)
	t.counters.dials[result].Add(1)
	if err != nil {
		t.d.trace(Record{ID: id, Upstream: s.to, Result: result, Err: err})
		return nil, err
	}
	in, err := t.add(s, n)
	if in != s {
		_ = unix.Close(s.fd)
	}
	return in, err
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
	if s.fd, err = t.d.dial.rawSocket(s.to, unix.SOCK_DGRAM); err != nil {
		return dialResult(err), err
	}
	if s.local, err = startConnect(s.fd, s.to); err != nil {
		_ = unix.Close(s.fd)
	}
	return dialResult(err), err
}

// add enters s into the table and hands it to the loop. It returns the session of
// that flow, which is another if there is one.
func (t *sessions) add(s *session, n int) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.useLoopLocked(); err != nil {
		return nil, err
	}
	in := t.byID[s.id]
	if in == nil {
		if len(t.byID) >= t.d.opts.UDP.MaxSessions {
			t.counters.sessionLimit.Add(1)
			t.evictLocked(t.used.next)
		}
		in = s
		in.link(&t.used)
		t.byID[in.id] = in
		t.own.add(in.local)
		t.counters.begin()
		t.loop.Post(&in.task)
	}
	t.useLocked(in)
	t.countLocked(in, n, 0)
	return in, nil
}

// useLoopLocked makes the loop that serves the sessions if there is none yet, and
// fails after the end.
func (t *sessions) useLoopLocked() (err error) {
	if t.closed {
		return context.Canceled
	}
	if t.loop == nil {
		if t.loop, err = loop.New(); err == nil {
			close(t.begun)
		}
	}
	return err
}

// evictLocked ends s. Its socket is the loop's to close; the lock makes sure that
// a task which is posted here runs before the one that ends the rest.
func (t *sessions) evictLocked(s *session) {
	t.removeLocked(s, flow.ReasonEvicted)
	t.loop.Post(&s.task)
}

// removeLocked takes s out of the table; false if it was out already.
func (t *sessions) removeLocked(s *session, r flow.CloseReason) bool {
	if s.ended {
		return false
	}
	s.ended, s.reason = true, r
	s.unlink()
	delete(t.byID, s.id)
	return true
}

// run serves the sessions until ctx is done, and ends them.
func (t *sessions) run(ctx context.Context) error {
	if t.shared {
		<-ctx.Done()
		t.shutdown()
		return nil
	}
	select {
	case <-t.begun:
	case <-ctx.Done():
		if t.closeUnused() {
			return nil
		}
	}
	loopCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- t.loop.Run(loopCtx) }()
	<-ctx.Done()
	t.shutdown()
	stop()
	return <-done
}

// closeUnused ends what never began; false if it has.
func (t *sessions) closeUnused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = t.loop == nil
	return t.closed
}

// shutdown ends every session, and returns when the loop serves none.
func (t *sessions) shutdown() {
	done := make(chan struct{})
	var task loop.Task
	task.Init(loop.RunnerFunc(func() {
		defer close(done)
		for s := t.longestIdle(); s != nil; s = t.longestIdle() {
			s.end(flow.ReasonShutdown)
		}
	}))
	t.mu.Lock()
	t.closed = true
	posted := t.loop.Post(&task)
	t.mu.Unlock()
	if posted {
		<-done
	}
}

// longestIdle is the session that has not been used for longest, nil if there is none.
func (t *sessions) longestIdle() *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) == 0 {
		return nil
	}
	return t.used.next
}

// timeout returns how long s may be idle.
func (t *sessions) timeout(s *session) time.Duration {
	if s.id.Destination.Port() == 53 {
		return t.d.opts.UDP.DNSTimeout
	}
	return t.d.opts.UDP.IdleTimeout
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

// session is one UDP flow with its connected upstream socket.
type session struct {
	t      *sessions
	id     flow.ID
	to     netip.AddrPort
	local  netip.AddrPort // of fd
	w      flow.DatagramWriter
	start  time.Time
	task   loop.Task
	source loop.Source
	timer  loop.Timer

	// Guarded by sessions.mu.
	prev, next *session      // in sessions.used, unless ended
	last       time.Duration // when a datagram last passed, since sessions.start
	up, down   uint64
	ended      bool
	reason     flow.CloseReason // valid iff ended

	// sending is held while a client's datagram is sent. The loop alone changes
	// fd, with sending held, and may read it without.
	sending sync.Mutex
	fd      int // negative: closed
}

// link puts s before at in a ring.
func (s *session) link(at *session) {
	s.prev, s.next = at.prev, at
	s.prev.next, at.prev = s, s
}

func (s *session) unlink() { s.prev.next, s.next.prev = s.next, s.prev }

// send sends one datagram without waiting.
func (s *session) send(payload []byte) unix.Errno {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.fd < 0 {
		return unix.EBADF
	}
	return sendDatagram(uintptr(s.fd), payload)
}
