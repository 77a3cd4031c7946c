package proxy

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// answer lets the handler serve an attempt that will not be accepted, and returns
// what the client saw and what was recorded.
func (r *rig) answer(id flow.ID) (string, Record) {
	r.t.Helper()
	req := newRequest(r.t, id, nil)
	served := r.handle(req)
	answer := await(r.t, "an answer to the SYN", req.answered)
	rec := await(r.t, "the record", r.records)
	await(r.t, "the handler's end", served)
	if rec.ID != id {
		r.t.Errorf("recorded %v, want %v", rec.ID, id)
	}
	return answer, rec
}

// to is the rig's flow to another destination.
func (r *rig) to(d netip.AddrPort) flow.ID {
	id := r.id
	id.Destination = d
	return id
}

// TestFailedDials: a client sees what it would see without a gateway, and the
// outcome is counted once.
func TestFailedDials(t *testing.T) {
	multicast := func(id flow.ID) netip.AddrPort {
		if id.Client.Addr().Is6() {
			return netip.MustParseAddrPort("[ff02::1]:9")
		}
		return netip.MustParseAddrPort("224.0.0.1:9")
	}
	for _, tc := range []struct {
		name   string
		to     func(t *testing.T, id flow.ID) netip.AddrPort
		answer string
		result DialResult
		err    error
	}{
		{"closed port", closedPort, "refuse", DialRefused, unix.ECONNREFUSED},
		{"silent host", func(t *testing.T, id flow.ID) netip.AddrPort {
			t.Helper()
			return fullListener(t, id.Destination.Addr())
		}, "drop", DialTimeout, unix.ETIMEDOUT},
		{"no route", func(_ *testing.T, id flow.ID) netip.AddrPort { return multicast(id) }, "refuse", DialUnreachable, unix.ENETUNREACH},
		{"denied", func(*testing.T, flow.ID) netip.AddrPort { return netip.MustParseAddrPort("169.254.169.254:80") }, "refuse", DialDenied, errDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := Options{ConnectTimeout: 30 * time.Millisecond, Allow: []Class{ClassMulticast}}
			forRigs(t, o, func(t *testing.T, r *rig) {
				to := tc.to(t, r.id)
				before := descriptors()
				answer, rec := r.answer(r.to(to))
				if answer != tc.answer {
					t.Errorf("answered by %s, want %s", answer, tc.answer)
				}
				if rec.Result != tc.result || !errors.Is(rec.Err, tc.err) || rec.Upstream != to {
					t.Errorf("recorded %v, %v to %v; want %v, %v to %v", rec.Result, rec.Err, rec.Upstream, tc.result, tc.err, to)
				}
				s := r.h.Stats().TCP
				if s.Dials[tc.result] != 1 || s.Opened != 0 || s.Open != 0 {
					t.Errorf("counted %+v", s)
				}
				eventually(t, "no socket is left", func() bool { return descriptors() == before })
				if len(r.d.dial.own.m) != 0 {
					t.Errorf("%v is still called our own", r.d.dial.own.m)
				}
			})
		})
	}
}

// TestOwnConnection refuses a connection of the gateway that comes back through
// the device while it is dialled: each round would dial another.
func TestOwnConnection(t *testing.T) {
	forRigs(t, Options{ConnectTimeout: time.Hour}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		r.ctx = ctx
		silent := fullListener(t, r.id.Destination.Addr())
		first := newRequest(t, r.to(silent), nil)
		served := r.handle(first)
		var local netip.AddrPort
		eventually(t, "the dial to begin", func() bool {
			r.d.dial.own.mu.Lock()
			defer r.d.dial.own.mu.Unlock()
			for local = range r.d.dial.own.m {
				return true
			}
			return false
		})
		looped := r.to(silent)
		looped.Client = local
		if answer, rec := r.answer(looped); answer != "refuse" || !errors.Is(rec.Err, errLoop) || rec.Result != DialDenied {
			t.Errorf("%s: %v, %v; want a refusal for the loop", answer, rec.Result, rec.Err)
		}
		// The stack ends: the dial that would last an hour does, too.
		cancel()
		await(t, "the handler's end", served)
		if answer := <-first.answered; answer != "refuse" {
			t.Errorf("a canceled attempt was answered by %s", answer)
		}
		if rec := <-r.records; !errors.Is(rec.Err, context.Canceled) {
			t.Errorf("recorded %v", rec.Err)
		}
	})
}

// TestSilentHostsBlockNobody: dials that hang do not keep others waiting.
func TestSilentHostsBlockNobody(t *testing.T) {
	forRigs(t, Options{ConnectTimeout: time.Hour}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		r.ctx = ctx
		silent := fullListener(t, r.id.Destination.Addr())
		var hang []chan struct{}
		for range 50 {
			hang = append(hang, r.handle(newRequest(t, r.to(silent), nil)))
		}
		j := r.join()
		go send(t, j.client, []byte("through"))
		receive(t, "upstream", j.up, []byte("through"))
		cancel()
		for _, served := range hang {
			await(t, "a canceled attempt's end", served)
		}
		for range hang {
			<-r.records
		}
	})
}

// TestFailedHandshake resets the upstream of a client that was gone before the
// handshake was over.
func TestFailedHandshake(t *testing.T) {
	forRigs(t, Options{}, func(t *testing.T, r *rig) {
		req := newRequest(t, r.id, nil)
		req.err = &flow.Error{Op: "accept", ID: r.id, Err: unix.ETIMEDOUT}
		served := r.handle(req)
		up, err := r.ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		await(t, "the handler's end", served)
		wantReset(t, "upstream", up)
		if s := r.h.Stats().TCP; s.Opened != 0 || s.Open != 0 || s.Dials[DialOK] != 1 {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestForwardAndFixed dial where the operator said, whatever class that is, and
// nowhere else.
func TestForwardAndFixed(t *testing.T) {
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
				service := netip.AddrPortFrom(id.Client.Addr(), 443)
				target := newRig(t, e, id, Options{})
				for name, o := range map[string]Options{
					"forward": {Forward: map[netip.AddrPort]netip.AddrPort{service: target.id.Destination}},
					"fixed":   {Handler: "fixed", Target: target.id.Destination},
				} {
					t.Run(name, func(t *testing.T) {
						r := &rig{t: t, records: make(chan Record, 10), ctx: context.Background(), ln: target.ln, id: target.to(service)}
						r.start(e, o) // with no class open
						j := r.join()
						exchange(t, j.client, j.up, []byte("up"), []byte("down"))
						if rec := j.ended(flow.ReasonDone); rec.Upstream != target.id.Destination || rec.ID != r.id {
							t.Errorf("recorded %v to %v", rec.ID, rec.Upstream)
						}
						if o.Handler == "fixed" {
							return
						}
						if answer, rec := r.answer(r.to(target.id.Destination)); answer != "refuse" || !errors.Is(rec.Err, errDenied) {
							t.Errorf("the server itself: %s, %v; want a refusal", answer, rec.Err)
						}
					})
				}
			})
		})
	}
}

// TestNew: names, and what a trace is not needed for.
func TestNew(t *testing.T) {
	for name, want := range map[string]string{"": "*proxy.direct", "direct": "*proxy.direct", "echo": "*proxy.echo"} {
		h, err := New(Options{Handler: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, isEcho := h.(*echo); isEcho != strings.Contains(want, "echo") {
			t.Errorf("handler %q is a %T, want %s", name, h, want)
		}
	}
	h, err := New(Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := flow.ID{Protocol: flow.TCP, Client: netip.MustParseAddrPort("198.18.0.1:1"), Destination: netip.MustParseAddrPort("127.0.0.1:1")}
	req := newRequest(t, id, nil)
	h.HandleTCP(t.Context(), req)
	if a := <-req.answered; a != "refuse" {
		t.Errorf("loopback is answered by %s by default", a)
	}
}
