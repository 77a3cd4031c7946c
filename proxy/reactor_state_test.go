package proxy

import (
	"io"
	"strings"
	"testing"

	"github.com/tungate/tungate/flow"
)

func (i interest) String() string {
	var names []string
	for bit, name := range map[interest]string{
		clientBytes: "client's bytes", clientRoom: "client's room",
		upstreamBytes: "upstream's bytes", upstreamRoom: "upstream's room",
	} {
		if i&bit != 0 {
			names = append(names, name)
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// TestInterest is the whole function: every direction waits for one thing, or for
// nothing once it is over.
func TestInterest(t *testing.T) {
	up := []struct {
		done, full, refused bool
		want                interest
	}{
		{false, false, false, clientBytes},
		{false, true, false, upstreamRoom},
		{true, false, false, 0},
		{true, true, false, 0},
		{true, false, true, clientBytes},
		{true, true, true, clientBytes},
	}
	down := []struct {
		done, full bool
		want       interest
	}{
		{false, false, upstreamBytes},
		{false, true, clientRoom},
		{true, false, 0},
		{true, true, 0},
	}
	for _, u := range up {
		for _, d := range down {
			h := halves{upDone: u.done, upFull: u.full, refused: u.refused, downDone: d.done, downFull: d.full}
			if got := h.interest(); got != u.want|d.want {
				t.Errorf("%+v: %v, want %v", h, got, u.want|d.want)
			}
			if h.over() != (u.done && d.done) || h.halfClosed() != (u.done != d.done) {
				t.Errorf("%+v: over %v, half-closed %v", h, h.over(), h.halfClosed())
			}
		}
	}
}

// TestTransitions drives a flow through every change of its state, and looks at
// what it waits for after each.
func TestTransitions(t *testing.T) {
	const all = clientBytes | upstreamBytes
	type step struct {
		name string
		do   func(t *testing.T, j *joined)
		want interest
	}
	end := func(reason flow.CloseReason) step {
		return step{"the end by " + reason.String(), func(_ *testing.T, j *joined) { j.ended(reason) }, 0}
	}
	clientFIN := func(want interest) step {
		return step{"FIN of the client", func(_ *testing.T, j *joined) { _ = j.client.CloseWrite() }, want}
	}
	upstreamFIN := func(want interest) step {
		return step{"FIN of the upstream", func(_ *testing.T, j *joined) { _ = j.up.CloseWrite() }, want}
	}
	fillClient := func(want interest) step {
		return step{"the client's window fills", func(_ *testing.T, j *joined) { j.fillClient() }, want}
	}
	fillUpstream := func(want interest) step {
		return step{"the upstream fills", func(_ *testing.T, j *joined) { j.fillUpstream() }, want}
	}
	drainClient := func(want interest) step {
		return step{"the client reads", func(t *testing.T, j *joined) { swallow(t, j.client) }, want}
	}
	drainUpstream := func(want interest) step {
		return step{"the upstream reads", func(t *testing.T, j *joined) { swallow(t, j.up) }, want}
	}
	for name, steps := range map[string][]step{
		"client first":               {clientFIN(upstreamBytes), upstreamFIN(0), end(flow.ReasonDone)},
		"upstream first":             {upstreamFIN(clientBytes), clientFIN(0), end(flow.ReasonDone)},
		"client full, then not":      {fillClient(clientBytes | clientRoom), drainClient(all)},
		"upstream full, then not":    {fillUpstream(upstreamRoom | upstreamBytes), drainUpstream(all)},
		"both full":                  {fillClient(clientBytes | clientRoom), fillUpstream(upstreamRoom | clientRoom), drainClient(upstreamRoom | upstreamBytes), drainUpstream(all)},
		"client's FIN waits":         {fillUpstream(upstreamRoom | upstreamBytes), clientFIN(upstreamRoom | upstreamBytes), drainUpstream(upstreamBytes), upstreamFIN(0), end(flow.ReasonDone)},
		"upstream's FIN waits":       {fillClient(clientBytes | clientRoom), upstreamFIN(clientBytes | clientRoom), drainClient(clientBytes), clientFIN(0), end(flow.ReasonDone)},
		"half-closed, then full":     {clientFIN(upstreamBytes), fillClient(clientRoom), drainClient(upstreamBytes)},
		"half-closed, upstream full": {upstreamFIN(clientBytes), fillUpstream(upstreamRoom), drainUpstream(clientBytes)},
		"refused while the client is full": {
			fillClient(clientBytes | clientRoom),
			{"the upstream closes, and the client sends", func(t *testing.T, j *joined) {
				t.Helper()
				_ = j.up.Close()
				for !j.refusedNow() {
					if _, err := j.client.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
			}, clientBytes | clientRoom},
		},
		"reset by the client":   {{"RST", func(_ *testing.T, j *joined) { j.client.Abort() }, 0}, end(flow.ReasonClientReset)},
		"reset by the upstream": {{"RST", func(_ *testing.T, j *joined) { reset(j.up) }, 0}, end(flow.ReasonUpstreamReset)},
		"reset by a full client": {
			fillClient(clientBytes | clientRoom),
			{"RST", func(_ *testing.T, j *joined) { j.client.Abort() }, 0},
			end(flow.ReasonClientReset),
		},
	} {
		t.Run(name, func(t *testing.T) {
			forFamilies(t, flow.TCP, func(t *testing.T, id flow.ID) {
				j := newRig(t, onLoop, id, Options{}).join()
				await(t, "the loop to take it", j.served)
				j.waitsFor("the begin", all)
				for _, s := range steps {
					s.do(t, j)
					j.waitsFor(s.name, s.want)
				}
			})
		})
	}
}

// waitsFor returns when the flow waits for want; a flow that is over for nothing.
func (j *joined) waitsFor(after string, want interest) {
	j.t.Helper()
	var got interest
	eventually(j.t, after+": it waits for "+want.String(), func() bool {
		got = 0
		j.onLoop(func(f *reactorFlow) {
			if f != nil {
				got = f.interest()
			}
		})
		return got == want
	})
}

func (j *joined) refusedNow() (refused bool) {
	j.onLoop(func(f *reactorFlow) { refused = f != nil && f.refused })
	return refused
}

// swallow reads whatever c gets, for the rest of the test.
func swallow(t *testing.T, c io.ReadCloser) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
}
