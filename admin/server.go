package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// readHeaderTimeout ends a connection that dribbles its request; nobody who
	// may ask is further away than this.
	readHeaderTimeout = 5 * time.Second
	// writeTimeout frees a scrape whose reader stalled. pprof extends it by the
	// seconds it was asked to sample.
	writeTimeout = 30 * time.Second
	// idleTimeout is longer than Prometheus's usual scrape interval of 15 s to
	// 60 s, so that a scraper keeps its connection.
	idleTimeout = 90 * time.Second
	// maxHeaderBytes is many times what curl, a browser or Prometheus sends.
	maxHeaderBytes = 16 << 10
	// drainTimeout is what a request in progress may still take when the server
	// ends. A profile takes longer and is cut.
	drainTimeout = time.Second
)

// Deps are what the server serves. Each may be nil: /metrics is then not found,
// /readyz always ready, and nothing logged.
type Deps struct {
	Metrics http.Handler
	// Ready returns nil, or a sentence that says what is still missing. It is
	// called for each request and must not block.
	Ready func() error
	Log   *zap.Logger
}

// Server is the admin server. Its methods may be called from any goroutine.
type Server struct {
	at       endpoint
	listener net.Listener // nil when Off
	http     *http.Server
	log      *zap.Logger

	conns sync.WaitGroup // connections between StateNew and StateClosed
	stop  chan struct{}  // closed by the first Close
	done  chan struct{}  // closed when Run has returned

	mu      sync.Mutex
	running bool // fields below mu
	closed  bool
}

// New binds the listen address. The caller must call Close, or let Run end.
// The error is one sentence that says what to do.
func New(o Options, d Deps) (*Server, error) {
	at, err := o.endpoint()
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	s := &Server{at: at, log: d.Log, stop: make(chan struct{}), done: make(chan struct{})}
	if s.listener, err = listen(at); err != nil {
		return nil, err
	}
	errorLog, err := zap.NewStdLogAt(d.Log, zap.WarnLevel)
	if err != nil {
		return nil, errors.Join(err, s.closeListener())
	}
	s.http = &http.Server{
		Handler:           newHandler(o, d, at),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
		ConnState:         s.trackConn,
	}
	return s, nil
}

// Addr is the bound address, nil when the server is Off.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Run serves until ctx is done or Close is called, then lets requests in progress
// finish for a moment and returns when all connections have ended: nil, or why
// the listener failed. After Close, and when called again, it returns
// http.ErrServerClosed.
func (s *Server) Run(ctx context.Context) error {
	if !s.start() {
		return http.ErrServerClosed
	}
	defer close(s.done)
	if s.listener == nil {
		select {
		case <-ctx.Done():
		case <-s.stop:
		}
		return nil
	}
	if s.at.exposed() {
		s.log.Warn("the admin server is open to other hosts; anybody who reaches this address can read it",
			zap.Stringer("address", s.listener.Addr()))
	}
	s.log.Info("admin server listens", zap.Stringer("address", s.listener.Addr()))
	return s.serve(ctx)
}

// serve ends the shutdown goroutine and every connection before it returns.
func (s *Server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // ends when ctx is done, Close is called, or Serve failed
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-s.stop:
		}
		s.shutdown(context.WithoutCancel(ctx))
	}()
	err := s.http.Serve(s.listener)
	cancel()
	<-ended
	s.conns.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, s.closeListener())
}

// shutdown lets requests in progress finish, then cuts what is left.
func (s *Server) shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // its error is the listener's, closed above
	}
}

// Close ends Run and returns when it has ended. Safe to call again.
func (s *Server) Close() error {
	s.mu.Lock()
	first, running := !s.closed, s.running
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.stop)
	}
	if running {
		<-s.done
		return nil // Run reported it
	}
	if !first {
		return nil
	}
	return s.closeListener()
}

// start reports whether this call of Run may serve.
func (s *Server) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running || s.closed {
		return false
	}
	s.running = true
	return true
}

// trackConn counts connections so that Run can wait for their goroutines:
// http.Server.Close closes them and does not. StateNew is reported by the
// accepting goroutine, so none is missed once Serve has returned.
func (s *Server) trackConn(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	case http.StateActive, http.StateIdle:
	}
}

func (s *Server) closeListener() error {
	if s.listener == nil {
		return nil
	}
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
