package minisock

// Stats is a snapshot.
type Stats struct {
	States   [NumStates]int    // records in each state; Creating and later include orphans
	Counters [NumCauses]uint64 // they only grow

	Records  int
	HalfOpen int // counted in the shares: Dialing and SynReceived
	Orphans  int
}

// Stats returns a snapshot; it takes no lock, so that numbers which change together
// may be read apart.
func (t *Table) Stats() Stats {
	s := Stats{Records: int(t.records.Load()), HalfOpen: int(t.halfOpen.Load()), Orphans: int(t.orphans.Load())}
	for i := range t.states {
		s.States[i] = int(t.states[i].Load())
	}
	for i := range t.counts {
		s.Counters[i] = t.counts[i].Load()
	}
	return s
}
