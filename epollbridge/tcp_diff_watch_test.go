package epollbridge_test

import (
	"github.com/tungate/tungate/epollbridge"
)

// told notes that each world told those who watch e for the given events. Who waits
// by edge and was told in one world alone is vague until the next Wait.
//
// The kernel tells everybody of a FIN, sent or received, since that changes the
// socket's state; gVisor tells readers of one received and writers of one sent.
// And a Poller tells who waits for RdHup of data, since a FIN is notified as data.
func (e *end) told(kernel, bridge epollbridge.Events) {
	for _, w := range e.watches {
		k := w.events&kernel != 0 || kernel == everything
		b := w.events&bridge != 0 || w.events&rdhup != 0 && bridge&in != 0
		w.vague = w.vague || k != b
	}
}

// anyWatch is one of e's registrations, or now and then one of the listener's.
func (s *script) anyWatch(e *end) *watched {
	if s.rand.IntN(8) == 0 {
		return s.listener[s.rand.IntN(len(s.listener))]
	}
	return e.watches[s.rand.IntN(len(e.watches))]
}

// interest is a random set of events, now and then one that is refused.
func (s *script) interest() epollbridge.Events {
	var e epollbridge.Events
	for _, bit := range []epollbridge.Events{in, in, out, rdhup} {
		if s.rand.IntN(2) == 0 {
			e |= bit
		}
	}
	switch s.rand.IntN(10) {
	case 0, 1, 2:
		e |= edge
	case 3:
		e |= once
	case 4:
		e |= edge | once
	case 5:
		e |= excl
	case 6:
		e |= excl | edge
	}
	return e
}

func (s *script) data() uint64 {
	s.nextData++
	return s.nextData << 20
}

func (s *script) addWatch(w *watched) {
	e, data := s.interest(), s.data()
	s.logf("add %d of end %d: %v data %x", w.id, w.endID(), e, data)
	if s.same("add", s.kernel.add(w, e, data), s.bridge.add(w, e, data)) {
		w.added, w.vague = true, false
		s.changed(w, e, data)
	}
}

func (s *script) modifyWatch(w *watched) {
	e, data := s.interest(), s.data()
	s.logf("modify %d of end %d: %v data %x", w.id, w.endID(), e, data)
	if s.same("modify", s.kernel.modify(w, e, data), s.bridge.modify(w, e, data)) {
		s.changed(w, e, data)
	}
}

func (s *script) changed(w *watched, e epollbridge.Events, data uint64) {
	delete(s.byData, w.data)
	w.events, w.data = e, data
	s.byData[data] = w
}

func (s *script) deleteWatch(w *watched) {
	s.logf("delete %d of end %d", w.id, w.endID())
	if s.same("delete", s.kernel.delete(w), s.bridge.delete(w)) {
		delete(s.byData, w.data)
		w.added, w.events = false, 0
	}
}

// same compares errors and reports whether there is none.
func (s *script) same(call string, kernel, bridge error) bool {
	s.t.Helper()
	if kernel != bridge { //nolint:errorlint // the very errno is wanted
		s.fail("%s: the kernel says %v, the Poller %v", call, kernel, bridge)
	}
	return kernel == nil
}

// wait compares what both worlds return.
func (s *script) wait() {
	s.logf("wait")
	var acked []*end
	for _, e := range s.ends {
		if e.finSent && !e.finAcked && s.kernel.finAcked(e.id) {
			acked = append(acked, e)
		}
	}
	kernel, bridge := s.byWatch(s.kernel.wait()), s.byWatch(s.bridge.wait())
	for w, k := range kernel {
		s.compare(w, k, bridge[w])
		delete(bridge, w)
	}
	for w, b := range bridge {
		s.compare(w, 0, b)
	}
	// Wait returned every edge there was.
	for _, e := range s.ends {
		for _, w := range e.watches {
			w.vague = false
		}
	}
	for _, e := range acked {
		e.finAcked = true
	}
}

// restless reports whether the kernel may tell of e without a step of the script:
// what is in a full buffer may move on, and an ACK of a FIN comes late.
func (e *end) restless() bool {
	return e.full || e.peer.full || e.finSent && !e.finAcked
}

// compare compares what the worlds returned of w, 0 for nothing.
func (s *script) compare(w *watched, kernel, bridge epollbridge.Events) {
	s.compared++
	k, b := kernel, bridge
	// A Poller reports Err for every connection in its final state, the kernel
	// for one with an error that nobody has read yet.
	if w.end != nil && w.end.final() {
		k, b = k&^errs, b&^errs
	}
	// How full a send buffer is when it is not writable differs.
	if w.end != nil && w.end.full {
		k, b = k&^out, b&^out
	}
	s.logf("\t%d of end %d: %v %v", w.id, w.endID(), kernel, bridge)
	if k != b {
		vague := w.vague || w.end != nil && w.end.restless()
		if k != 0 && b != 0 || !vague || w.events&edge == 0 {
			s.fail("%d of end %d (%v): the kernel returned %v, the Poller %v; ready for: kernel %v, bridge %v",
				w.id, w.endID(), w.events, kernel, bridge, s.kernel.ready(w.endID()), s.bridge.ready(w.endID()))
		}
		s.vague++
	}
	if kernel == 0 != (bridge == 0) && w.events&once != 0 { // disarmed in one world
		s.logf("modify %d of end %d: %v data %x", w.id, w.endID(), w.events, w.data)
		s.same("modify", s.kernel.modify(w, w.events, w.data), s.bridge.modify(w, w.events, w.data))
	}
}

func (s *script) byWatch(events []epollbridge.Event) map[*watched]epollbridge.Events {
	m := make(map[*watched]epollbridge.Events, len(events))
	for _, e := range events {
		w := s.byData[e.Data]
		if w == nil {
			s.fail("event %v of an unknown registration", e)
		}
		if _, twice := m[w]; twice {
			s.fail("event %v twice in one Wait", e)
		}
		m[w] = e.Events
	}
	return m
}
