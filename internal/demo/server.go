package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
)

// server answers HTTP, echo and bulk, each on a port of its own of one address.
type server struct {
	seed      uint64
	ports     ports
	listeners []net.Listener
	http      *http.Server

	mu    sync.Mutex
	conns map[net.Conn]struct{} // of echo and bulk; nil once closed
	wg    sync.WaitGroup
}

// listen makes the listeners and starts their goroutines, which end with close.
func listen(ctx context.Context, addr netip.Addr, seed uint64) (*server, error) {
	s := &server{seed: seed, conns: map[net.Conn]struct{}{}}
	lc := net.ListenConfig{Control: tuneSocket}
	for _, port := range []*netip.AddrPort{&s.ports.HTTP, &s.ports.Echo, &s.ports.Bulk} {
		l, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.listeners = append(s.listeners, l)
		*port = netip.MustParseAddrPort(l.Addr().String())
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serveHTTP)}
	s.wg.Go(func() { _ = s.http.Serve(s.listeners[0]) }) // ErrServerClosed
	s.wg.Go(func() { s.accept(s.listeners[1], echo) })
	s.wg.Go(func() { s.accept(s.listeners[2], s.bulk) })
	return s, nil
}

// close ends every connection and returns after the last goroutine.
func (s *server) close() error {
	var errs []error
	if s.http != nil {
		errs = append(errs, s.http.Close())
	}
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return errors.Join(errs...)
}

// accept serves each connection on a goroutine of its own until l is closed.
func (s *server) accept(l net.Listener, serve func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok || !s.keep(c) {
			c.Close()
			return
		}
		s.wg.Go(func() {
			defer s.drop(c)
			serve(tcp)
		})
	}
}

func (s *server) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) drop(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// serveHTTP answers GET with n bytes of stream id, and POST with the SHA-256 of
// what it was sent.
func (s *server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		sum, _, err := sumOf(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, sum)
		return
	}
	id, err := strconv.ParseUint(r.FormValue("id"), 10, 64)
	n, err2 := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err = errors.Join(err, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, seeded(s.seed, id), n) // the client sees a short body
}

// echo does without io.Copy, which would hold a pipe for every idle connection.
func echo(c *net.TCPConn) {
	var b [512]byte
	for {
		n, err := c.Read(b[:])
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// bulk serves one bulk transfer in the direction that its first byte names.
func (s *server) bulk(c *net.TCPConn) {
	var dir [1]byte
	if _, err := io.ReadFull(c, dir[:]); err != nil {
		return
	}
	if dir[0] == bulkUp {
		report := s.receive(c)
		_, _ = io.Copy(io.Discard, c)         // what is left unread would reset the report away
		_ = json.NewEncoder(c).Encode(report) // the client misses it
		return
	}
	// The client says by its FIN that it has enough.
	var enough atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Read(dir[:])
		enough.Store(true)
	}()
	_, _ = sendRecords(c, s.seed, enough.Load) // the client sees a short stream
	_ = c.Close()
	<-done
}

func (s *server) receive(c *net.TCPConn) bulkReport {
	v, err := newVerifier(s.seed)
	if err == nil {
		err = v.readAll(c)
	}
	r := bulkReport{Bytes: v.total, Took: v.took()}
	if err != nil {
		r.Failed = err.Error()
	}
	return r
}
