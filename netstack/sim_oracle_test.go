package netstack_test

import (
	"strings"

	"github.com/tungate/tungate/netstack/minisock"
)

// judge says what is wrong with what came of the scripts.
func (s *sim) judge(drained bool) {
	if !drained {
		s.fail("not everything ends: left are %s%+v", s.stack.Leftovers(), s.stack.Stats().Flows.States)
	}
	if s.counted(minisock.Unacked) && len(s.wire.dead) == 0 {
		s.fail("gVisor was not made to send again")
	}
	for _, c := range s.scripts {
		s.judgeScript(c)
	}
}

func (s *sim) judgeScript(c *script) {
	p := c.played
	if p == nil || !c.over() {
		s.fail("%s never ends: %s", c.name, c)
		return
	}
	if c.answer != accept && len(c.accepted) > 0 {
		s.fail("%s: accepted what was not to be: %s", c.name, c)
	}
	if c.answer != accept && p.err == nil && !p.gaveUp {
		s.fail("%s: its client was not told of the refusal: %s", c.name, c)
	}
	if c.answer == refuse && p.err != nil && !s.excused() && !strings.Contains(p.err.Error(), "refused") && !strings.Contains(p.err.Error(), "reset") {
		s.fail("%s: its client was refused by silence: %s", c.name, c)
	}
	if c.answer != accept || len(c.accepted) == 0 {
		return
	}
	if len(c.accepted) > 1 && s.counted(minisock.CookieAccepted) {
		return // a cookie keeps nothing: a segment that is sent again can be taken for a handshake's end
	}
	if len(c.accepted) > 1 {
		s.fail("%s: %d servers: %s", c.name, len(c.accepted), c)
		return
	}
	s.judgeStream(c, p, c.accepted[0])
	s.judgeStream(c, c.accepted[0], p)
}

// judgeStream compares what from has sent and to has received.
func (s *sim) judgeStream(c *script, from, to *player) {
	whole := to.eof && to.received == from.sent
	switch {
	case to.received > from.sent:
		s.fail("%s: %s received more than was sent: %s", c.name, to.name, c)
	case to.eof && (!whole || !from.shut && !from.closed && from.part.end != endQuit):
		s.fail("%s: %s saw an end of what had not ended: %s", c.name, to.name, c)
	case whole:
	case to.err == nil && !to.gaveUp:
		s.fail("%s: %s was not told that something is missing: %s", c.name, to.name, c)
	case from.err == nil && !from.gaveUp && !from.closed:
		s.fail("%s: %s was not told that something did not arrive: %s", c.name, from.name, c)
	}
	if c.peaceful() && !whole && !s.excused() {
		s.fail("%s: fails in peace: %s", c.name, c)
	}
}

// excused reports whether a connection may fail that nobody wants to end: the network
// was so bad that somebody may have given up, a client answers the last FIN with RST
// when it comes again, the table was full, or too full for more than a cookie, which
// does not know the segments that come before the one that completes the handshake.
func (s *sim) excused() bool {
	return s.hasty || s.wire.faults.outage > 0 || s.wire.faults.loss > 0.03 ||
		s.counted(minisock.CookieSent) || s.counted(minisock.BacklogFull) || s.counted(minisock.OrphanFull)
}

func (s *sim) counted(c minisock.Cause) bool { return s.stack.Stats().Flows.Counters[c] > 0 }
