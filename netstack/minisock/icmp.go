package minisock

import (
	"encoding/binary"

	"github.com/tungate/tungate/offload"
)

// The least path MTU that an ICMP error is believed to speak of: what every host
// takes (RFC 791, section 3.2; RFC 8200, section 5), as Linux's min_pmtu is.
const (
	minMTU4 = 576
	minMTU6 = 1280
)

// Unreachable is an ICMP error that a client, or somebody in its name, sent.
type Unreachable struct {
	// Quoted is what the error quotes: our packet's IP header and at least 8
	// bytes behind it.
	Quoted []byte
	// MTU is valid iff the error is about a packet too big.
	MTU int
	// Hard says that nothing will ever arrive there: protocol or port
	// unreachable, communication prohibited (RFC 1122, section 4.2.3.9).
	Hard bool
}

// ICMPError judges an ICMP error (RFC 5927): what it quotes must be a segment of a
// flow that is in flight. Pass means that the flow has an endpoint, and that the
// error is plausible; what it quotes is not translated. A hard error ends a half-open
// flow.
func (t *Table) ICMPError(e *Unreachable) Result {
	var k key
	seq, ok := quoted(e.Quoted, &k)
	if !ok {
		return t.dropped(Malformed)
	}
	floor := minMTU6
	if k.v4() {
		floor = minMTU4
	}
	if e.MTU != 0 && e.MTU < floor {
		return t.dropped(ICMPLowMTU)
	}
	var out outcome
	var p place
	p.lookup(t, &k)
	res := p.icmpError(e, seq, &out)
	p.unlock()
	t.finish(&out)
	return res
}

func (p *place) icmpError(e *Unreachable, seq uint32, out *outcome) Result {
	t := p.t
	switch {
	case p.record == nil:
		return t.dropped(ICMPUnknown)
	case p.state == SynReceived && seq == p.sndNxt-1:
		if e.Hard {
			p.end(HalfOpenRefused, out)
			return Result{Cause: HalfOpenRefused}
		}
		return t.dropped(ICMPUnknown)
	case !p.hasEndpoint() || before(seq, p.sndUna) || before(p.sndNxt, seq):
		return t.dropped(ICMPSequence)
	}
	t.count(ICMPPassed)
	return Result{Verdict: Pass, Owner: p.owner, Handle: p.handle()}
}

// quoted reads the flow and the sequence number of a packet of ours that an ICMP
// error quotes.
func quoted(b []byte, k *key) (seq uint32, ok bool) {
	l3 := 40
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		l3 = int(b[0]&15) * 4
		const moreOrOffset = 0x3fff
		if l3 < 20 || b[9] != offload.ProtoTCP || binary.BigEndian.Uint16(b[6:])&moreOrOffset != 0 {
			return 0, false
		}
	case len(b) >= 40 && b[0]>>4 == 6 && b[6] == offload.ProtoTCP:
	default:
		return 0, false
	}
	if len(b) < l3+8 {
		return 0, false
	}
	k.of(b, b[l3:], true)
	return binary.BigEndian.Uint32(b[l3+4:]), true
}
