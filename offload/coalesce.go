package offload

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// Frame is one frame as a Coalescer takes it, from the IP header on.
type Frame struct {
	Head    []byte // all of its IP and TCP header; may go on with payload
	Payload []byte // what follows Head; nil if Head is the whole frame
	ID      int    // the caller's name for it, given back in Merged.IDs
}

// Merged is one packet out of a Coalescer: a superframe, or a frame that nothing
// joined, with the header it came with.
type Merged struct {
	Hdr    Hdr
	Packet Packet // of the whole, as Parse would find it

	// Head is the IP and TCP header. A superframe's is the Coalescer's own, valid
	// until the next call; a single frame's is the caller's.
	Head    []byte
	Payload [][]byte // the caller's bytes, in order, none of them empty
	IDs     []int    // of the frames, in order

	// FixedID says that all segments of an IPv4 superframe carry the same
	// identification: SKB_GSO_TCP_FIXEDID, for which Hdr has no bit.
	FixedID bool
}

// Coalescer gathers the TCP segments of one batch of frames into superframes, for
// a device that delivers them one by one. Its rules are those of tcp_gro_receive
// (net/ipv4/tcp_offload.c), inet_gro_receive, ipv6_gro_receive and inet_gro_flush
// (include/net/gro.h), with two that are stricter: no frame overtakes one of its
// flow, whatever it is, and what a Segmenter makes of a superframe is, byte for
// byte, the frames it was made of.
//
// A batch is any number of calls of Add, then Next until it returns false.
type Coalescer struct {
	frames  []held   // taken, in order of arrival
	bundles []bundle // the packets they make, in order of their first frames
	taken   int      // bundles that Next has handed out

	flows   []flow // each flow of bundles
	buckets []int  // heads of the chains of flows, 1 + an index, 0 for none
	recent  int    // flow of the last frame taken, 1 + an index
	seed    [2]uint64

	head [ipv6HdrLen + tcpMaxLen]byte // of the superframe handed out
	vec  [][]byte                     // its payload
	ids  []int
}

// held is a frame, and the next of its bundle, -1 for none.
type held struct {
	Frame
	next int
}

// bundle is a packet in the making.
type bundle struct {
	hdr         Hdr    // of its first frame
	packet      Packet // of all its frames together
	first, last int    // its frames
	count       int    // of them
	size        int    // payload bytes of each but the last
	next        uint32 // sequence number of the byte that continues it
	fixedID     bool
	ended       bool // takes no more frames
}

// flow is a 5-tuple of which something is held.
type flow struct {
	bundle int // the last of the flow, the only one that a frame may join
	next   int // flow of the same bucket, 1 + an index
}

// NewCoalescer returns a Coalescer with room for the frames of one batch. It
// allocates nothing after that.
func NewCoalescer(room int) *Coalescer {
	room = max(room, 1)
	return &Coalescer{
		frames:  make([]held, 0, room),
		bundles: make([]bundle, 0, room),
		flows:   make([]flow, 0, room),
		buckets: make([]int, 1<<bits.Len(uint(room))),
		// The device's side chooses ports; it shall not choose our collisions.
		seed: [2]uint64{rand.Uint64(), rand.Uint64()},
		vec:  make([][]byte, 0, 2*room),
		ids:  make([]int, 0, room),
	}
}

// Len returns the number of frames held.
func (c *Coalescer) Len() int { return len(c.frames) }

// Add offers the next frame of the batch. h and p are its header, zero where the
// device has none, and what Parse found; h.Check(p) was OK. A frame is merged only
// if h vouches for its checksum, with NEEDS_CSUM or DATA_VALID: who has verified it
// with VerifyTransport sets DATA_VALID. Head and Payload together hold at least
// p.Len bytes. They are borrowed until the Next that returns false, if the fate is
// Held or Joined, and not at all if it is Pass or Drain.
func (c *Coalescer) Add(h *Hdr, p *Packet, f Frame) (Fate, Bar) {
	if p.Proto != ProtoTCP || p.Fragment {
		return c.addOther(p)
	}
	bar := unfit(h, p)
	starts := bar == BarNone && p.TCPFlags&(TCPFin|TCPPsh) == 0
	at := c.find(p, f.Head)
	if at == 0 && bar == BarNone {
		bar = BarFirst
	}
	switch {
	case at == 0 && !starts:
		return Pass, bar
	case len(c.frames) == cap(c.frames) || c.taken > 0:
		return Drain, BarFull
	}
	f.trim(p.Len)
	if bar == BarNone {
		b := &c.bundles[c.flows[at-1].bundle]
		if bar = c.fits(b, p, f.Head); bar == BarNone {
			c.recent = at
			c.join(b, p, f)
			return Joined, BarNone
		}
	}
	c.hold(h, p, f, !starts)
	c.follow(at, p, f.Head)
	return Held, bar
}

// addOther lets pass what is no TCP segment. A fragment may belong to any flow, so
// that it must not overtake anything: its ports are in another fragment, and behind
// an IPv6 Fragment header there can be more headers before TCP's.
func (c *Coalescer) addOther(p *Packet) (Fate, Bar) {
	switch {
	case !p.Fragment || p.Proto == ProtoUDP:
		return Pass, BarNotTCP
	case len(c.frames) > 0:
		return Drain, BarFragment
	}
	return Pass, BarFragment
}

// trim cuts the padding behind a packet of n bytes.
func (f *Frame) trim(n int) {
	over := len(f.Head) + len(f.Payload) - n
	if over < 0 {
		panic("offload: frame shorter than its packet")
	}
	if over == 0 {
		return
	}
	cut := min(over, len(f.Payload))
	f.Payload = f.Payload[:len(f.Payload)-cut]
	f.Head = f.Head[:len(f.Head)-(over-cut)]
}

// hold makes a bundle of its first frame.
func (c *Coalescer) hold(h *Hdr, p *Packet, f Frame, ended bool) {
	at := len(c.frames)
	c.frames = append(c.frames, held{f, -1})
	c.bundles = append(c.bundles, bundle{
		hdr:    *h,
		packet: *p,
		first:  at,
		last:   at,
		count:  1,
		size:   p.PayloadLen,
		next:   binary.BigEndian.Uint32(f.Head[p.L3Len+4:]) + uint32(p.PayloadLen), //nolint:gosec // at most 65535
		ended:  ended,
	})
}

// join appends a frame to b. FIN and PSH are the last segment's, and end it.
func (c *Coalescer) join(b *bundle, p *Packet, f Frame) {
	at := len(c.frames)
	c.frames = append(c.frames, held{f, -1})
	c.frames[b.last].next = at
	b.last = at
	b.count++
	b.packet.Len += p.PayloadLen
	b.packet.PayloadLen += p.PayloadLen
	b.next += uint32(p.PayloadLen) //nolint:gosec // at most 65535
	last := p.TCPFlags & (TCPFin | TCPPsh)
	b.packet.TCPFlags |= last
	b.ended = last != 0 || p.PayloadLen < b.size
}

// Next takes out the next packet, in the order in which their first frames came,
// and reports whether there was one. Between the first call and the one that
// returns false, Add holds nothing more.
func (c *Coalescer) Next(out *Merged) bool {
	if c.taken == len(c.bundles) {
		c.reset()
		*out = Merged{}
		return false
	}
	b := &c.bundles[c.taken]
	c.taken++
	hdrLen := b.packet.L3Len + b.packet.L4Len
	c.collect(b.first, hdrLen)
	head := c.frames[b.first].Head[:hdrLen:hdrLen]
	h := b.hdr
	if b.count > 1 {
		head = append(c.head[:0], head...)
		b.finish(&h, head)
	}
	*out = Merged{Hdr: h, Packet: b.packet, Head: head, Payload: c.vec, IDs: c.ids, FixedID: b.fixedID}
	return true
}

// collect lists the payload and the names of the frames from i on.
func (c *Coalescer) collect(i, hdrLen int) {
	clear(c.vec)
	c.vec, c.ids = c.vec[:0], c.ids[:0]
	for i >= 0 {
		f := &c.frames[i]
		c.ids = append(c.ids, f.ID)
		if len(f.Head) > hdrLen {
			c.vec = append(c.vec, f.Head[hdrLen:])
		}
		if len(f.Payload) > 0 {
			c.vec = append(c.vec, f.Payload)
		}
		i = f.next
	}
}

// finish makes of the first frame's header, in head, that of the superframe, and
// its virtio_net_hdr: what tcp4_gro_complete, tcp6_gro_complete and
// inet_gro_complete do, and virtio_net_hdr_from_skb.
func (b *bundle) finish(h *Hdr, head []byte) {
	p := &b.packet
	*h = Hdr{
		Flags:      FlagNeedsCsum,
		GSOType:    GSOTCPv4,
		HdrLen:     uint16(len(head)), //nolint:gosec // at most 100
		GSOSize:    uint16(b.size),    //nolint:gosec // at most 65535
		CsumStart:  uint16(p.L3Len),   //nolint:gosec // 20 or 40
		CsumOffset: CsumOffsetTCP,
	}
	tcp := head[p.L3Len:]
	tcp[13] = p.TCPFlags
	sum := PseudoSum(p.Src, p.Dst, ProtoTCP, p.L4Len+p.PayloadLen)
	binary.BigEndian.PutUint16(tcp[CsumOffsetTCP:], sum)
	if p.Version == 4 {
		binary.BigEndian.PutUint16(head[2:], uint16(p.Len)) //nolint:gosec // maxMerged holds it
		clear(head[10:12])
		binary.BigEndian.PutUint16(head[10:], ^Sum(head[:ipv4HdrLen], 0))
	} else {
		h.GSOType = GSOTCPv6
		binary.BigEndian.PutUint16(head[4:], uint16(p.Len-ipv6HdrLen)) //nolint:gosec // likewise
	}
	if p.TCPFlags&TCPCwr != 0 {
		h.GSOType |= GSOECN
	}
}

// reset forgets the batch and the caller's bytes.
func (c *Coalescer) reset() {
	if len(c.frames) == 0 {
		return
	}
	clear(c.frames)
	clear(c.vec)
	clear(c.buckets)
	c.frames, c.bundles, c.flows, c.vec = c.frames[:0], c.bundles[:0], c.flows[:0], c.vec[:0]
	c.taken, c.recent = 0, 0
}
