package minisock

// lossy says that the client has told by SACK lately that something is missing. The bit
// is free once the handshake is done.
const lossy = deferred

// lossyFor is how many ACKs, a power of two, a flow counts as lossy on average.
const lossyFor = 256

// steps sets in what steps the stack is to be shown an ACK of a lossy flow's that
// acknowledges so many bytes more: a segment each. For as much as an ACK lets it send,
// the stack sends in one segment, and its RACK knows only whole ones: of a superframe
// whose first part is lost the client says by SACK that it has the rest, and RACK sees
// nothing, so that a timer of 200 ms or more must find out. Where segments are single
// ones, RACK repairs a loss in a round trip.
func (p *place) steps(g *segment, more uint32, res *Result) {
	if (g.ack*0x9e3779b1)>>24 == 0 { // one of lossyFor
		p.flags &^= lossy
		return
	}
	if step := p.payloadMost(); more > uint32(step) {
		res.Step, res.Fresh = step, more
	}
}
