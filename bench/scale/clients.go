package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// order is what the parent tells a process of clients, one JSON object a line.
type order struct {
	Op     string // open, ping, fin, reset
	Every  int    // ping: one connection in so many
	Window int    // how many at once
}

// news is what such a process answers, many times during an order.
type news struct {
	Op     string
	Done   int           // so far in this order
	Failed int           // so far in this order
	Lost   int           // connections that ended unasked, since the process began
	Slow   time.Duration // the slowest so far in this order
	Err    string        // the first failure of this order
	End    bool          // the order is done
}

// What a connection does. In all but none and idle something is awaited.
const (
	stateNone = iota
	stateConnecting
	stateGreeting // the first byte is sent
	stateIdle
	statePinged
	stateClosing // our FIN is sent
)

type conn struct {
	fd    int
	state int
	since time.Time // valid iff something is awaited
}

// clients is one process of them: one thread, one epoll.
type clients struct {
	ep     int
	wake   int // eventfd: an order has come
	orders chan order
	out    *json.Encoder
	dests  []netip.AddrPort
	first  int // of the connections' numbers, which choose destinations
	conns  []conn
	now    order
	news   news
	flying int // connections of which something is awaited
}

// stall is how long an order goes on without anything happening. It is longer than
// the kernel's third retransmission of a SYN or a byte.
const stall = 20 * time.Second

// progress is how often a process reports during an order.
const progress = 250

// runClients is the process; it ends with its input.
func runClients(n, first int, dests []netip.AddrPort) error {
	debug.SetGCPercent(-1) // it allocates nothing to speak of
	runtime.LockOSThread()
	c := &clients{
		orders: make(chan order, 1), out: json.NewEncoder(os.Stdout), dests: dests, first: first,
		conns: make([]conn, n),
	}
	var err error
	if c.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if c.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if err := c.register(c.wake, -1, unix.EPOLLIN); err != nil {
		return err
	}
	go c.listen()
	for {
		if err := c.poll(-1); err != nil {
			return err
		}
		select {
		case o, ok := <-c.orders:
			if !ok {
				return nil
			}
			if err := c.obey(o); err != nil {
				return err
			}
		default:
		}
	}
}

// listen passes orders on until the input ends.
func (c *clients) listen() {
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		var o order
		if json.Unmarshal(sc.Bytes(), &o) == nil {
			c.orders <- o
			c.rouse()
		}
	}
	close(c.orders)
	c.rouse()
}

func (c *clients) rouse() { _, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (c *clients) register(fd, index int, events uint32) error {
	return unix.EpollCtl(c.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(index)})
}

// obey carries an order out on every connection it is about.
func (c *clients) obey(o order) error {
	c.now, c.news = o, news{Op: o.Op, Lost: c.news.Lost}
	last := time.Now()
	for next := 0; next < len(c.conns) || c.flying > 0; {
		for ; next < len(c.conns) && c.flying < o.Window; next++ {
			c.begin(next)
		}
		before := c.flying
		if err := c.poll(100); err != nil {
			return err
		}
		if c.flying != before || next < len(c.conns) {
			last = time.Now()
		} else if time.Since(last) > stall {
			c.giveUp()
		}
	}
	c.news.End = true
	return c.out.Encode(c.news)
}

// begin starts what the order asks of one connection.
func (c *clients) begin(i int) {
	k := &c.conns[i]
	switch c.now.Op {
	case "open":
		if k.state == stateNone {
			c.open(i)
		}
	case "ping":
		if k.state == stateIdle && i%c.now.Every == 0 {
			c.await(k, statePinged)
			if _, err := unix.Write(k.fd, []byte{2}); err != nil {
				c.end(k, err)
			}
		}
	case "fin":
		if k.state == stateIdle {
			c.await(k, stateClosing)
			if err := unix.Shutdown(k.fd, unix.SHUT_WR); err != nil {
				c.end(k, err)
			}
		}
	case "reset":
		if k.state == stateIdle {
			_ = unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			_ = unix.Close(k.fd)
			k.state = stateNone
			c.count(0)
		}
	}
}

// open begins a connect.
func (c *clients) open(i int) {
	k := &c.conns[i]
	c.await(k, stateConnecting)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if k.fd = fd; err != nil {
		c.end(k, err)
		return
	}
	to := c.dests[(c.first+i)%len(c.dests)]
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err == nil || errors.Is(err, unix.EINPROGRESS) {
		err = c.register(fd, i, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET)
	}
	if err != nil {
		c.end(k, err)
	}
}

func (c *clients) await(k *conn, state int) {
	k.state, k.since = state, time.Now()
	c.flying++
}

// poll waits for events, for ms at most (-1: for ever), and serves them.
func (c *clients) poll(ms int) error {
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(c.ep, events[:], ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	for _, e := range events[:max(n, 0)] {
		if e.Fd < 0 {
			var b [8]byte
			_, _ = unix.Read(c.wake, b[:])
			continue
		}
		c.serve(&c.conns[e.Fd], e.Events)
	}
	return nil
}

// serve handles what happened to one connection.
func (c *clients) serve(k *conn, events uint32) {
	switch {
	case k.state == stateNone:
	case events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && k.state != stateClosing:
		code, _ := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		c.end(k, unix.Errno(code))
	case k.state == stateConnecting && events&unix.EPOLLOUT != 0:
		if _, err := unix.Write(k.fd, []byte{1}); err != nil {
			c.end(k, err)
			return
		}
		k.state = stateGreeting
	case events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0:
		var b [8]byte
		n, err := unix.Read(k.fd, b[:])
		if err == nil && n == 0 {
			err = io.EOF
		}
		c.read(k, err)
	}
}

// read takes note of a byte that came, or of the end.
func (c *clients) read(k *conn, err error) {
	switch {
	case errors.Is(err, unix.EAGAIN):
	case err != nil:
		c.end(k, err)
	case k.state == stateGreeting || k.state == statePinged:
		k.state = stateIdle
		c.flying--
		c.count(time.Since(k.since))
	}
}

// end closes a connection that has ended: as it should after our FIN, by a failure
// of what was awaited, or unasked.
func (c *clients) end(k *conn, err error) {
	if k.fd >= 0 {
		_ = unix.Close(k.fd)
	}
	switch {
	case k.state == stateClosing && errors.Is(err, io.EOF):
		c.flying--
		k.state = stateNone
		c.count(time.Since(k.since))
		return
	case k.state == stateIdle:
		c.news.Lost++
	default:
		c.flying--
		c.news.Failed++
		if k.state != stateConnecting && k.state != stateGreeting {
			c.news.Lost++
		}
	}
	if c.news.Err == "" {
		c.news.Err = fmt.Sprintf("%s: %v", c.now.Op, err)
	}
	k.state = stateNone
}

// giveUp ends all of which something is still awaited.
func (c *clients) giveUp() {
	for i := range c.conns {
		if k := &c.conns[i]; k.state != stateNone && k.state != stateIdle {
			c.end(k, os.ErrDeadlineExceeded)
		}
	}
}

// count takes note of one that is done.
func (c *clients) count(took time.Duration) {
	c.news.Done++
	c.news.Slow = max(c.news.Slow, took)
	if c.news.Done%progress == 0 {
		_ = c.out.Encode(c.news)
	}
}
