package netstack

import "fmt"

// FailAttempts ends the attempts that are under way, as a timer does.
func (s *Stack) FailAttempts(err error) (n int) {
	for _, a := range s.attempts.snapshot() {
		a.fail(err)
		n++
	}
	return n
}

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
	return what
}
