package minisock

import (
	"encoding/binary"
	"math/bits"
)

// change adds to fields of a TCP header in place and keeps what the checksum must
// be changed by: the difference of the words, as ones' complement numbers (RFC 1624).
type change struct {
	t    []byte
	full bool
	diff uint64
}

// add adds d to the 32 bits at offset i. The bytes of a field at an odd offset stand
// swapped in the checksum's words, and so does its difference (RFC 1071, 2 (B)).
func (c *change) add(i int, d uint32) {
	old := binary.BigEndian.Uint32(c.t[i:])
	binary.BigEndian.PutUint32(c.t[i:], old+d)
	if !c.full {
		return
	}
	diff := uint64(old+d) + uint64(^old) // words of 32 bits fold to ones of 16
	if i&1 == 1 {
		diff = uint64(bits.ReverseBytes16(fold(diff)))
	}
	c.diff += diff
}

// done updates a full checksum. A partial one is the pseudo-header's sum, which no
// header byte is part of.
func (c *change) done() {
	if c.full {
		sum := uint64(^binary.BigEndian.Uint16(c.t[16:])) + c.diff
		binary.BigEndian.PutUint16(c.t[16:], ^fold(sum))
	}
}

// fold reduces a sum of words to one of 16 bits.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s & 0xffff)
}

// inward gives the stack its own numbers in a segment of the client's: ACK, SACK
// blocks and TSecr are about the stack's sequence space and clock. Both TS are valid
// with ACK only (RFC 7323, section 3.2).
func (r *record) inward(g *segment) {
	if g.flags&ack == 0 {
		return
	}
	c := change{t: g.tcp, full: !g.partial}
	c.add(8, -r.seqD)
	if g.ts != 0 {
		c.add(g.ts+4, -r.tsD)
	}
	if plain := g.ts == 24 && len(g.tcp) == 32; !plain && len(g.tcp) > tcpHdrLen {
		if c.sack(-r.seqD, g.ack) {
			r.flags |= lossy
		}
	}
	c.done()
}

// window makes a segment's window w.
func (g *segment) window(w uint16) {
	c := change{t: g.tcp, full: !g.partial, diff: uint64(w) + uint64(^g.wnd)}
	binary.BigEndian.PutUint16(g.tcp[14:], w)
	c.done()
	g.wnd = w
}

// sequence makes a segment's sequence number n.
func (g *segment) sequence(n uint32) {
	c := change{t: g.tcp, full: !g.partial}
	c.add(4, n-g.seq)
	c.done()
	g.seq = n
}

// sack moves the blocks of the SACK options, and reports whether one is above ack: below
// it is what came twice (RFC 2883).
func (c *change) sack(d, ack uint32) (above bool) {
	for i := tcpHdrLen; ; {
		kind, next := option(c.t, i)
		if next == 0 {
			return above
		}
		if kind == optSACK {
			above = above || next-i >= 10 && before(ack, binary.BigEndian.Uint32(c.t[i+2:])) ||
				next-i >= 18 && before(ack, binary.BigEndian.Uint32(c.t[i+10:]))
			for j := i + 2; j+4 <= next; j += 4 {
				c.add(j, d)
			}
		}
		i = next
	}
}

// outward gives the client the numbers that it was promised in a segment of the
// stack's: SEQ and TSval are the stack's own. ACK and SACK are about the client's
// numbers, which nobody changes.
func (r *record) outward(g *segment) {
	c := change{t: g.tcp, full: !g.partial}
	c.add(4, r.seqD)
	if g.ts != 0 {
		c.add(g.ts, r.tsD)
	}
	c.done()
	g.seq += r.seqD
}
