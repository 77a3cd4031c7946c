package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"

	"github.com/tungate/tungate/bench/baseline"
	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/loop"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/tundev"
)

// The stacks that a sink can be behind.
const (
	stackOurs   = "sink"     // netstack on a TUN with all offloads
	stackNoVnet = "novnet"   // netstack on a TUN without virtio_net_hdr
	stackBare   = "baseline" // gVisor alone on a TUN without virtio_net_hdr
)

// The ports of a sink, at every address.
const (
	sinkPort   = 7100 // what clients send is discarded
	sourcePort = 7101 // clients are sent bytes without end
)

// neverDone is the context of what ends with the process.
func neverDone() context.Context { return context.Background() }

// sink serves connections at their very end: there is no upstream.
type sink struct {
	loop    *loop.Loop
	forever [sourceBytes]byte // what clients are sent, over and over
}

const (
	// sourceBytes is what one write offers the stack, as much as the relay
	// does (proxy, bigRead).
	sourceBytes = 1 << 20
	// stepBytes bounds what a connection moves in a turn, as in the relay.
	stepBytes = 256 << 10
)

// HandleTCP implements flow.Handler. How a request is answered is known here alone.
func (s *sink) HandleTCP(_ context.Context, req flow.Request) {
	if c, err := req.Accept(); err == nil {
		s.serve(c, req.ID().Destination.Port() == sourcePort)
	}
}

// HandleDatagram implements flow.Handler.
func (s *sink) HandleDatagram(flow.DatagramWriter, flow.ID, []byte) bool { return false }

// stream is what a sink needs of a connection.
type stream interface {
	SetNotifier(n flow.Notifier)
	ReadTo(w io.Writer) (int64, error)
	WriteFrom(p flow.Payload) (int64, error)
	Close() error
}

// sinkFlow is a connection, the loop's from serve on.
type sinkFlow struct {
	s       *sink
	c       stream
	task    loop.Task
	send    bool
	over    bool
	payload endless
}

// serve gives c to the loop.
func (s *sink) serve(c stream, send bool) {
	f := &sinkFlow{s: s, c: c, send: send}
	f.task.Init(f)
	c.SetNotifier(f)
	f.Notify() // bytes may have come before
}

// Notify implements flow.Notifier.
func (f *sinkFlow) Notify() { f.s.loop.Post(&f.task) }

// RunTask implements loop.Runner: it moves what can be moved.
func (f *sinkFlow) RunTask() {
	for budget := stepBytes; !f.over; {
		var n int64
		var err error
		if f.send {
			f.payload.b = f.s.forever[:]
			n, err = f.c.WriteFrom(&f.payload)
		} else {
			n, err = f.c.ReadTo(io.Discard)
		}
		switch budget -= int(n); {
		case errors.Is(err, flow.ErrWouldBlock):
			return
		case err != nil:
			f.over = true
			_ = f.c.Close()
		case budget <= 0:
			f.Notify()
			return
		}
	}
}

// endless is a flow.Payload over bytes that are there.
type endless struct{ b []byte }

func (p *endless) Len() int { return len(p.b) }

func (p *endless) Read(b []byte) (int, error) {
	n := copy(b, p.b)
	p.b = p.b[n:]
	return n, nil
}

// runSink makes a device and serves it by one of the stacks until its input ends. It
// says "ready" when clients may connect; profile is a file for a CPU profile, "" none.
func runSink(behind, profile string) error {
	l, err := loop.New()
	if err != nil {
		return err
	}
	s := &sink{loop: l}
	o := tundev.Options{}
	if behind != stackOurs {
		o.Queues, o.Offload.VnetHdr = 1, tundev.Off
	}
	d, err := openTUN(o)
	if err != nil {
		return err
	}
	defer d.Close()
	failed := make(chan error, 2)
	go func() { failed <- l.Run(neverDone()) }()
	if err := s.attach(d, behind, failed); err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println("ready")
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	select {
	case err = <-ended:
	case err = <-failed:
		err = errors.Join(errors.New("the stack ended"), err)
	}
	return err
}

// attach puts the stack between the device and the sink; it ends with the process,
// or says why it failed.
func (s *sink) attach(d *tundev.Device, behind string, failed chan<- error) error {
	switch behind {
	case stackBare:
		return baseline.Serve(d.Queues()[0].FD(), uint32(d.MTU()), func(c *baseline.Conn) {
			s.serve(c, c.Port() == sourcePort)
		})
	case stackOurs, stackNoVnet:
		st, err := netstack.New(d, s, netstack.Options{}, netstack.Deps{Loop: s.loop})
		if err != nil {
			return err
		}
		go func() { failed <- st.Run() }()
		return nil
	}
	return fmt.Errorf("no stack %q", behind)
}
