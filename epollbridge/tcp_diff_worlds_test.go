package epollbridge_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// bridgeWorld is the world of gVisor and the Poller.
type bridgeWorld struct {
	lab      *lab
	poller   *epollbridge.Poller
	listener *socket
	shared   *epollbridge.Shared
	addr     tcpip.FullAddress
	ends     map[int]*socket
}

func newBridgeWorld(*testing.T) *bridgeWorld {
	l := makeLab()
	w := &bridgeWorld{lab: l, poller: epollbridge.New(), ends: map[int]*socket{}}
	w.listener, w.addr = l.listen()
	w.shared = epollbridge.Share(&w.listener.source)
	return w
}

func (b *bridgeWorld) shut() {
	b.poller.Close()
	b.listener.ep.Close()
	b.lab.close()
}

func (b *bridgeWorld) dial(end int)        { b.ends[end] = b.lab.dial(b.addr) }
func (b *bridgeWorld) accept(end int)      { b.ends[end] = b.listener.accept() }
func (b *bridgeWorld) fill(end int)        { b.lab.fill(b.ends[end]) }
func (b *bridgeWorld) drain(_, peer int)   { b.lab.drain(b.ends[peer]) }
func (b *bridgeWorld) reset(end int)       { b.ends[end].ep.Abort() }
func (b *bridgeWorld) close(end int)       { b.ends[end].ep.Close() }
func (b *bridgeWorld) settle(int, ...*end) { b.lab.settle() }

func (b *bridgeWorld) write(end, n int) int {
	n, _ = b.ends[end].write(n)
	return n
}

func (b *bridgeWorld) read(end, n int) (int, outcome) {
	n, err := b.ends[end].read(n)
	if _, wait := err.(*tcpip.ErrWouldBlock); err != nil && !wait {
		return n, ended
	}
	return n, more
}

func (b *bridgeWorld) shutdown(end int) { must(b.ends[end].ep.Shutdown(tcpip.ShutdownWrite)) }

func (b *bridgeWorld) add(w *watched, e epollbridge.Events, data uint64) error {
	var object epollbridge.Waitable = b.shared
	if w.end != nil {
		object = &b.ends[w.end.id].source
	}
	return b.poller.Add(&w.reg, object, e, data)
}

func (b *bridgeWorld) modify(w *watched, e epollbridge.Events, data uint64) error {
	return b.poller.Modify(&w.reg, e, data)
}

func (b *bridgeWorld) delete(w *watched) error { return b.poller.Delete(&w.reg) }

func (b *bridgeWorld) wait() []epollbridge.Event {
	events := make([]epollbridge.Event, 256)
	n, err := b.poller.Wait(events, 0)
	if err != nil {
		panic(err)
	}
	return events[:n]
}

func (b *bridgeWorld) ready(end int) epollbridge.Events {
	ep := b.listener.ep
	if end != listenerEnd {
		ep = b.ends[end].ep
	}
	return epollbridge.Events(ep.Readiness(waiter.EventMask(everything)))
}

// kernelWorld is the world of loopback sockets and epoll(7).
type kernelWorld struct {
	t        *testing.T
	epoll    int
	listener int
	addr     unix.Sockaddr
	ends     map[int]int
	copies   map[*watched]int // duplicates, so that an end can be watched twice
}

func newKernelWorld(t *testing.T) *kernelWorld {
	k := &kernelWorld{t: t, ends: map[int]int{}, copies: map[*watched]int{}}
	var err error
	k.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	k.ok(err)
	k.listener = k.socket()
	k.ok(unix.Bind(k.listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	k.ok(unix.Listen(k.listener, 128))
	k.addr, err = unix.Getsockname(k.listener)
	k.ok(err)
	return k
}

func (k *kernelWorld) ok(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernelWorld) socket() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	k.ok(err)
	k.ok(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 200<<10))
	k.ok(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 128<<10))
	return fd
}

func (k *kernelWorld) shut() {
	for _, fd := range k.copies {
		unix.Close(fd)
	}
	for _, fd := range k.ends {
		unix.Close(fd)
	}
	unix.Close(k.listener)
	unix.Close(k.epoll)
}

func (k *kernelWorld) dial(end int) {
	fd := k.socket()
	k.ends[end] = fd
	if err := unix.Connect(fd, k.addr); err != nil && err != unix.EINPROGRESS {
		k.t.Fatal(err)
	}
}

func (k *kernelWorld) accept(end int) {
	fd, _, err := unix.Accept4(k.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	k.ok(err)
	k.ends[end] = fd
}

func (k *kernelWorld) write(end, n int) int {
	n, err := unix.SendmsgN(k.ends[end], make([]byte, n), nil, nil, unix.MSG_NOSIGNAL)
	if err != nil {
		return 0
	}
	return n
}

func (k *kernelWorld) read(end, n int) (int, outcome) {
	n, err := unix.Read(k.ends[end], make([]byte, n))
	switch {
	case n > 0:
		return n, more
	case err == unix.EAGAIN:
		return 0, more
	}
	return 0, ended
}

func (k *kernelWorld) fill(end int) {
	k.until("no more is taken", func() bool {
		for k.write(end, 8<<10) > 0 {
		}
		return k.ready(end)&out == 0
	})
}

func (k *kernelWorld) drain(end, peer int) {
	k.until("everything arrives", func() bool {
		for {
			if n, _ := k.read(peer, 64<<10); n == 0 {
				break
			}
		}
		return k.inOut(k.ends[end], unix.SIOCOUTQ) == 0 && k.inOut(k.ends[peer], unix.SIOCINQ) == 0
	})
}

func (k *kernelWorld) shutdown(end int) { k.ok(unix.Shutdown(k.ends[end], unix.SHUT_WR)) }

func (k *kernelWorld) reset(end int) {
	k.ok(unix.SetsockoptLinger(k.ends[end], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	k.close(end)
}

func (k *kernelWorld) close(end int) {
	for w, fd := range k.copies {
		if w.end != nil && w.end.id == end {
			unix.Close(fd)
			delete(k.copies, w)
		}
	}
	unix.Close(k.ends[end])
	delete(k.ends, end)
}

func (k *kernelWorld) fd(w *watched) int {
	fd, ok := k.copies[w]
	if ok {
		return fd
	}
	of := k.listener
	if w.end != nil {
		of = k.ends[w.end.id]
	}
	fd, err := unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
	k.ok(err)
	k.copies[w] = fd
	return fd
}

func (k *kernelWorld) control(op int, w *watched, e epollbridge.Events, data uint64) error {
	return unix.EpollCtl(k.epoll, op, k.fd(w), &unix.EpollEvent{
		Events: uint32(e), Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32)),
	})
}

func (k *kernelWorld) add(w *watched, e epollbridge.Events, data uint64) error {
	return k.control(unix.EPOLL_CTL_ADD, w, e, data)
}

func (k *kernelWorld) modify(w *watched, e epollbridge.Events, data uint64) error {
	return k.control(unix.EPOLL_CTL_MOD, w, e, data)
}

func (k *kernelWorld) delete(w *watched) error { return k.control(unix.EPOLL_CTL_DEL, w, 0, 0) }

func (k *kernelWorld) wait() []epollbridge.Event {
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(k.epoll, events[:], 0)
	k.ok(err)
	var got []epollbridge.Event
	for _, e := range events[:n] {
		got = append(got, event(epollbridge.Events(e.Events), uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32))
	}
	return got
}

func (k *kernelWorld) poll(fd int, events int16, timeout time.Duration) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	_, err := unix.Poll(fds, int(timeout.Milliseconds()))
	k.ok(err)
	return fds[0].Revents
}

func (k *kernelWorld) ready(end int) epollbridge.Events {
	fd := k.listener
	if end != listenerEnd {
		fd = k.ends[end]
	}
	return epollbridge.Events(k.poll(fd, int16(everything), 0))
}

func (k *kernelWorld) inOut(fd int, request uint) int {
	n, err := unix.IoctlGetInt(fd, request)
	k.ok(err)
	return n
}

// States of include/net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpClose       = 7
	tcpCloseWait   = 8
)

func (k *kernelWorld) info(fd int) *unix.TCPInfo {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	k.ok(err)
	return info
}

// settle waits for what a loopback connection does after the system call that
// caused it has returned, which is seldom anything.
func (k *kernelWorld) settle(pending int, ends ...*end) {
	k.until("the accept queue", func() bool { return int(k.info(k.listener).Unacked) == pending })
	for _, e := range ends {
		if fd, open := k.ends[e.id]; open {
			k.until("the state of an end", func() bool { return k.settled(e, fd) })
		}
	}
}

func (k *kernelWorld) settled(e *end, fd int) bool {
	var ok bool
	switch state := k.info(fd).State; {
	case e.final():
		ok = state == tcpClose
	case e.finSent:
		ok = state == tcpFinWait1 || state == tcpFinWait2
	case e.finCame:
		ok = state == tcpCloseWait
	default:
		ok = state == tcpEstablished
	}
	return ok && (e.broken || e.peer.full || k.inOut(fd, unix.SIOCINQ) == e.unread)
}

// finAcked reports whether the FIN of an end has been acknowledged, which is told
// to everybody and can take as long as an ACK may be delayed.
func (k *kernelWorld) finAcked(end int) bool { return k.info(k.ends[end]).State != tcpFinWait1 }

// until polls cond.
func (k *kernelWorld) until(what string, cond func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			k.t.Fatalf("the kernel's sockets did not settle within %v: %s", patience, what)
		}
		_, _ = unix.Poll(nil, 1)
	}
}
