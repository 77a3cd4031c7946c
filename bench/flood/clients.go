package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// clientTimeout is when a connect counts as failed: a person has given up by then.
const clientTimeout = 10 * time.Second

// attempt is one client.
type attempt struct {
	Connect time.Duration
	Err     string
}

// outcome is what the clients print.
type outcome struct {
	Attempts []attempt
	Echoes   []time.Duration // how long each byte of a connection that stood took
	EchoErr  string          // what ended that one
}

// runClients connects n times, evenly over span, beside one connection that stands,
// and prints what became of each. A client has the address after the one before's, if
// there is a first.
func runClients(addr string, n int, span time.Duration, first netip.Addr) error {
	var out outcome
	attempts := make([]attempt, n)
	standing, err := new(net.Dialer).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	defer standing.Close()
	var wg sync.WaitGroup
	begin := time.Now()
	wg.Go(func() { out.talk(standing, begin.Add(span)) })
	for i := range n {
		time.Sleep(time.Until(begin.Add(span * time.Duration(i) / time.Duration(n))))
		from := first
		if first.IsValid() {
			first = first.Next()
		}
		wg.Go(func() { attempts[i] = connect(from, addr) })
	}
	wg.Wait()
	out.Attempts = attempts
	return json.NewEncoder(os.Stdout).Encode(out)
}

// echoPause is between two bytes of the connection that stands: some hundred a second
// are enough to see what it loses.
const echoPause = 10 * time.Millisecond

// talk sends a byte and awaits it, again and again.
func (o *outcome) talk(c net.Conn, until time.Time) {
	for time.Now().Before(until) {
		start := time.Now()
		if err := echo(c); err != nil {
			o.EchoErr = err.Error()
			return
		}
		o.Echoes = append(o.Echoes, time.Since(start))
		time.Sleep(echoPause)
	}
}

// connect is one client: connect, a byte there and back, close.
func connect(from netip.Addr, addr string) (a attempt) {
	start := time.Now()
	d := net.Dialer{Timeout: clientTimeout}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := d.DialContext(context.Background(), "tcp", addr)
	a.Connect = time.Since(start)
	if err == nil {
		err = echo(c)
		c.Close()
	}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

func echo(c net.Conn) error {
	err := c.SetDeadline(time.Now().Add(clientTimeout))
	if err == nil {
		_, err = c.Write([]byte{1})
	}
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return err
}

// runServer echoes for ever.
func runServer(addr string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // out of descriptors for a moment
		}
		go func() {
			_, _ = io.Copy(c, c)
			c.Close()
		}()
	}
}
