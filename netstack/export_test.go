package netstack

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tungate/tungate/flow"
)

// FailAttempts ends the attempts that are under way, as a timer does.
func (s *Stack) FailAttempts(err error) (n int) {
	for _, a := range s.attempts.snapshot() {
		a.fail(err)
		n++
	}
	return n
}

// SendBuffer is what a connection's send buffer was bounded to, and what it is.
func SendBuffer(c flow.Conn) (bound, size int64) {
	cn := c.(*conn)
	if b := cn.bulk.Load(); b != nil {
		bound = b.size
	}
	return bound, cn.ep.SocketOptions().GetSendBufferSize()
}

// Bulk is how many flows count as bulk ones.
func (s *Stack) Bulk() int64 { return s.counters.bulk.Load() }

// NearBuffer is nearBuffer.
func NearBuffer(flows int64) int64 { return nearBuffer(flows) }

// Leftovers says what is left of connections, "" if nothing is.
func (s *Stack) Leftovers() (what string) {
	st := s.Stats()
	waiting := 0
	for _, q := range st.Link.Queues {
		waiting += q.Waiting
	}
	s.closing.mu.Lock()
	closing := len(s.closing.list)
	s.closing.mu.Unlock()
	for _, n := range []struct {
		name string
		n    int
	}{
		{"records", st.Flows.Records},
		{"half-open", st.Flows.HalfOpen},
		{"orphans", st.Flows.Orphans},
		{"connections", st.Established},
		{"late dials", int(s.counters.late.Load())},
		{"attempts", s.attempts.len()},
		{"closed endpoints", closing},
		{"endpoints of gVisor's", len(s.gv.RegisteredEndpoints())},
		{"dying endpoints of gVisor's", len(s.gv.CleanupEndpoints())},
		{"waiting frames", waiting},
	} {
		if n.n != 0 {
			what += fmt.Sprintf("%d %s; ", n.n, n.name)
		}
	}
	for _, ep := range s.gv.RegisteredEndpoints() {
		if e, ok := ep.(interface {
			State() uint32
			Info() tcpip.EndpointInfo
		}); ok {
			what += fmt.Sprintf("%v %+v; ", tcp.EndpointState(e.State()), e.Info())
		}
	}
	return what
}

// Translate is translate.
func Translate(err tcpip.Error) error { return translate(err) }
