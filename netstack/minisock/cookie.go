package minisock

import (
	"sync"
	"sync/atomic"
	"time"
)

// A SYN cookie is a handshake without a record: what must be known later is in the
// numbers that the client sends back. The sequence number is
//
//	31 parity | 30..29 segment size | 28..0 SipHash of the flow, the client's number and these
//
// keyed with a secret that is new every 64 s; parity says which of the last two it
// was, so a cookie is valid for 64 to 128 s and a secret is never used again. Linux
// keeps one secret and counts minutes in 8 bits, which leaves 24 to the hash.
//
// Window scale and SACK are in the lower bits of our timestamp, laid out as Linux
// lays them out (net/ipv4/syncookies.c, cookie_init_timestamp); a client without
// timestamps has neither.
const (
	cookieTime  = 64 * time.Second
	cookieHash  = 1<<29 - 1
	cookieSizes = 4

	tsBits = 6
	tsMask = 1<<tsBits - 1
	tsWS   = 15 // also: none
	tsSACK = 16 // bit 5 is ECN's, which is never agreed on
)

// cookieMSS returns the segment sizes that a cookie can say, Linux's msstab. What is
// in between is rounded down.
func cookieMSS(v4 bool) [cookieSizes]uint16 {
	if v4 {
		return [...]uint16{536, 1300, 1440, 1460}
	}
	return [...]uint16{1280 - 60, 1480 - 60, 1500 - 60, 9000 - 60}
}

// cookies is the secrets, and when they were used last.
type cookies struct {
	ring atomic.Pointer[cookieRing]
	mu   sync.Mutex   // one rotates
	last atomic.Int64 // when a cookie was sent, plus one; 0 is never
}

type cookieRing struct {
	tick int64
	keys [2]secret // of this tick and the one before, by parity
}

// secrets returns those of now, new ones if it is time.
func (c *cookies) secrets(now time.Duration) *cookieRing {
	tick := int64(now / cookieTime)
	if r := c.ring.Load(); r != nil && r.tick >= tick {
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.ring.Load()
	if old != nil && old.tick >= tick {
		return old
	}
	r := &cookieRing{tick: tick}
	random(r.keys[0][:])
	random(r.keys[1][:])
	if old != nil && old.tick == tick-1 {
		r.keys[old.tick&1] = old.keys[old.tick&1]
	}
	c.ring.Store(r)
	return r
}

// number is the cookie of a flow.
func (r *cookieRing) number(k *key, irs, parity, size uint32) uint32 {
	top := parity<<31 | size<<29
	return top | uint32(r.keys[parity].sip(k, uint64(irs), uint64(top))&cookieHash)
}

// make returns the sequence number of a SYN-ACK to a client that wants mss.
func (c *cookies) make(k *key, irs uint32, mss uint16, now time.Duration) uint32 {
	c.last.Store(int64(now) + 1)
	r := c.secrets(now)
	size := uint32(0)
	for i, m := range cookieMSS(k.v4()) {
		if m <= mss {
			size = uint32(i) & 3
		}
	}
	return r.number(k, irs, uint32(r.tick&1), size)
}

// check reports whether g is the first segment to answer one of our cookies, and
// what the client's SYN had said.
func (c *cookies) check(t *Table, g *segment, now time.Duration) (SYNOptions, bool) {
	last := c.last.Load()
	if last == 0 || int64(now) >= last+int64(2*cookieTime) {
		return SYNOptions{}, false
	}
	cookie, irs := g.ack-1, g.seq-1
	size := cookie >> 29 & 3
	if c.secrets(now).number(&g.key, irs, cookie>>31, size) != cookie {
		t.count(CookieRejected)
		return SYNOptions{}, false
	}
	o := SYNOptions{MSS: cookieMSS(g.key.v4())[size], WindowScale: -1}
	o.MSS = max(o.MSS, uint16(t.o.MinMSS)) //nolint:gosec // Validate bounds it
	if g.ts != 0 {
		o.TS, o.TSVal, o.TSEcr = true, g.tsVal(), g.tsEcr()
		said := o.TSEcr - t.tsClock(&g.key)
		o.SACK = said&tsSACK != 0
		if ws := said & tsWS; ws != tsWS {
			o.WindowScale = int8(ws & tsWS)
		}
	}
	return o, true
}

// cookieTS is a timestamp not after now's that says what a SYN said.
func cookieTS(ms uint32, o *SYNOptions) uint32 {
	said := uint32(tsWS)
	if o.WindowScale >= 0 {
		said = uint32(o.WindowScale)
	}
	if o.SACK {
		said |= tsSACK
	}
	ts := ms&^tsMask | said
	if before(ms, ts) {
		ts -= 1 << tsBits
	}
	return ts
}

// sendCookie answers a SYN without a record, unless that is to be saved.
func (p *place) sendCookie(g *segment, o *SYNOptions, now time.Duration, out *outcome) Result {
	t := p.t
	if t.spares(g, now) {
		return t.dropped(SYNSpared)
	}
	l := t.announced()
	r := &out.reply
	*r = reply{
		key: g.key, flags: syn | ack, isSYN: true, queue: g.queue, wnd: l.Window,
		seq: t.cookies.make(&g.key, g.seq, o.MSS, now), ack: g.seq + 1,
		syn: SYNOptions{MSS: l.MSS4, WindowScale: -1},
	}
	if !g.key.v4() {
		r.syn.MSS = l.MSS6
	}
	if o.TS {
		r.syn.TS, r.syn.TSEcr, r.syn.SACK = true, o.TSVal, o.SACK
		r.syn.TSVal = cookieTS(millis(now), o) + t.tsClock(&g.key)
		if o.WindowScale >= 0 {
			r.syn.WindowScale = int8(l.WindowScale & 15)
		}
	}
	return t.dropped(CookieSent)
}

// cookieFlow makes the record of a client that sent our cookie back.
func (p *place) cookieFlow(g *segment, o *SYNOptions, now time.Duration, out *outcome) Result {
	t := p.t
	if t.refusing.Load() || t.records.Load() >= int64(t.o.MaxRecords) {
		t.count(TableFull)
		return p.rejected(g, now, out)
	}
	wait := t.o.DeferAccept > 0 && g.bare()
	// A client that waits takes a place among the half-open; if there is none,
	// the cookie is good for its data as well.
	if wait && t.enterShares(&g.key) != None {
		return t.dropped(Deferred)
	}
	if !p.insert(&g.key, now) {
		if wait {
			t.leaveShares(&g.key)
		}
		return t.dropped(TableFull)
	}
	t.count(CookieAccepted)
	p.begin(g, o, g.seq-1, g.ack-1)
	p.tsLast = o.TSEcr
	if wait {
		p.flags |= shares
		p.setState(SynReceived)
		p.deferAccept(g, now)
		return t.dropped(Deferred)
	}
	return p.create(g, now)
}
