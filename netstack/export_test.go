package netstack

// FailAttempts ends the attempts that are under way, as a timer does.
func (s *Stack) FailAttempts(err error) (n int) {
	for _, a := range s.attempts.snapshot() {
		a.fail(err)
		n++
	}
	return n
}
