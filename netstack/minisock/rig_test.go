package minisock

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/tungate/tungate/offload"
)

// Addresses of the tests: a client of each family, and where it wants to go.
var (
	client4 = netip.MustParseAddrPort("198.18.0.7:40000")
	server4 = netip.MustParseAddrPort("203.0.113.9:443")
	client6 = netip.MustParseAddrPort("[fd00:18::7]:40000")
	server6 = netip.MustParseAddrPort("[fd00:99::9]:443")
)

// Variables, since constants do not wrap.
var (
	irs      uint32 = 0xfffffff0 // the client's numbers wrap with its first bytes
	stackISN uint32 = 0x7fffff00
	stackTS  uint32 = 0xfffffffe
	clientTS uint32 = 0xffffff00
)

// seg is a segment as tests write it.
type seg struct {
	flags    uint8
	seq, ack uint32
	wnd      uint16
	opts     []byte
	data     int
}

// pair is the two ends of a flow.
type pair struct{ src, dst netip.AddrPort }

func (p pair) back() pair { return pair{p.dst, p.src} }

var flow4, flow6 = pair{client4, server4}, pair{client6, server6}

// raw builds a packet without any code of the package.
func raw(p pair, s seg) []byte {
	var b []byte
	l4 := 20 + len(s.opts) + s.data
	if p.src.Addr().Is4() {
		b = []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}
		binary.BigEndian.PutUint16(b[2:], uint16(20+l4))
	} else {
		b = []byte{0x60, 0, 0, 0, 0, 0, 6, 64}
		binary.BigEndian.PutUint16(b[4:], uint16(l4))
	}
	b = append(append(b, p.src.Addr().AsSlice()...), p.dst.Addr().AsSlice()...)
	if b[0] == 0x45 {
		binary.BigEndian.PutUint16(b[10:], ^naive(b[:20], 0))
	}
	at := len(b)
	b = append(b, make([]byte, l4)...)
	t := b[at:]
	binary.BigEndian.PutUint16(t, p.src.Port())
	binary.BigEndian.PutUint16(t[2:], p.dst.Port())
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], s.ack)
	t[12], t[13] = byte((20+len(s.opts))/4<<4), s.flags
	binary.BigEndian.PutUint16(t[14:], s.wnd)
	copy(t[20:], s.opts)
	for i := range s.data {
		t[20+len(s.opts)+i] = byte(i * 7)
	}
	binary.BigEndian.PutUint16(t[16:], ^naive(t, pseudo(b, at)))
	return b
}

// naive is the Internet checksum's sum, as RFC 1071 writes it down.
func naive(b []byte, sum uint32) uint16 {
	for i, x := range b {
		if i%2 == 0 {
			sum += uint32(x) << 8
		} else {
			sum += uint32(x)
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudo is the sum of the pseudo-header of a packet whose transport begins at at.
func pseudo(b []byte, at int) uint32 {
	from := 8
	if b[0]>>4 == 4 {
		from = 12
	}
	return uint32(naive(b[from:at], 6+uint32(len(b)-at)))
}

// got is a packet taken apart, with its checksums proven right.
type got struct {
	pair
	seg
	syn   SYNOptions
	queue uint16
	tsVal uint32
	tsEcr uint32
	hasTS bool
	raw   []byte
}

func decode(t testing.TB, b []byte) got {
	t.Helper()
	at := 40
	var src, dst netip.Addr
	if b[0]>>4 == 4 {
		at = 20
		if naive(b[:20], 0) != 0xffff || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Fatalf("IPv4 header of %x", b)
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	} else {
		if int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 {
			t.Fatalf("IPv6 header of %x", b)
		}
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	}
	if naive(b[at:], pseudo(b, at)) != 0xffff {
		t.Fatalf("TCP checksum of %x", b)
	}
	h := b[at:]
	hl := int(h[12]>>4) * 4
	g := got{
		pair: pair{netip.AddrPortFrom(src, binary.BigEndian.Uint16(h)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(h[2:]))},
		seg: seg{
			flags: h[13], seq: binary.BigEndian.Uint32(h[4:]), ack: binary.BigEndian.Uint32(h[8:]),
			wnd: binary.BigEndian.Uint16(h[14:]), opts: h[20:hl], data: len(h) - hl,
		},
		syn: ReadSYN(h[:hl]), raw: b,
	}
	g.hasTS, g.tsVal, g.tsEcr = g.syn.TS, g.syn.TSVal, g.syn.TSEcr
	return g
}

// rig is a table with a client and a stack played by the test.
type rig struct {
	testing.TB
	t    *Table
	now  time.Duration
	sent []got
	gone []Handle
	why  []Cause

	ended []ending

	stalled   []stall
	onStalled func()
}

// stall is a call of Stalled.
type stall struct {
	pair
	mtu uint16
}

// ending is a call of Ended.
type ending struct {
	pair
	why Cause
}

func (r *rig) Emit(b []byte, queue uint16) {
	g := decode(r, append([]byte(nil), b...))
	g.queue = queue
	r.sent = append(r.sent, g)
}

func (r *rig) Gone(h Handle, _ uint32, why Cause) {
	r.gone = append(r.gone, h)
	r.why = append(r.why, why)
}

func (r *rig) Ended(client, destination netip.AddrPort, why Cause) {
	r.ended = append(r.ended, ending{pair{client, destination}, why})
}

func (r *rig) Stalled(client, destination netip.AddrPort, mtu uint16) {
	r.stalled = append(r.stalled, stall{pair{client, destination}, mtu})
	if r.onStalled != nil {
		r.onStalled()
	}
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	o := Options{Shards: 4, Local: Local{MSS4: 1460, MSS6: 1440, Window: 64000, WindowScale: 7}}
	if change != nil {
		change(&o)
	}
	r := &rig{TB: t, now: time.Hour}
	var err error
	if r.t, err = New(o, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// describe parses a packet as the link would.
func describe(t testing.TB, b []byte, partial bool, queue uint16) Segment {
	t.Helper()
	var p offload.Packet
	if v := offload.Parse(&p, b, len(b)); v != offload.OK {
		t.Fatalf("parse: %v", v)
	}
	var h offload.Hdr
	if partial {
		h.Flags = offload.FlagNeedsCsum
	}
	return FromPacket(&p, &h, b, queue)
}

// in gives the table a packet of the client's; what it becomes is decoded if it passes.
func (r *rig) in(p pair, s seg) (Result, got) {
	r.Helper()
	return r.inQueue(p, s, 3)
}

func (r *rig) inQueue(p pair, s seg, queue uint16) (Result, got) {
	r.Helper()
	b := raw(p, s)
	d := describe(r, b, false, queue)
	res := r.t.Inbound(&d, r.now)
	return res, decode(r, b)
}

// out gives it a packet of the stack's; p is the client's view.
func (r *rig) out(p pair, s seg) (Result, got) {
	r.Helper()
	b := raw(p.back(), s)
	d := describe(r, b, false, 0)
	res := r.t.Outbound(&d, r.now)
	return res, decode(r, b)
}

// reply takes the one packet that was sent since the last call.
func (r *rig) reply() got {
	r.Helper()
	if len(r.sent) != 1 {
		r.Fatalf("%d packets sent, want 1: %+v", len(r.sent), r.sent)
	}
	g := r.sent[0]
	r.sent = nil
	return g
}

func (r *rig) silent() {
	r.Helper()
	if len(r.sent) != 0 {
		r.Fatalf("sent %+v", r.sent)
	}
}

// wants compares what matters of an answer.
func (r *rig) wants(g got, p pair, flags uint8, seq, ack uint32) {
	r.Helper()
	if g.pair != p.back() || g.flags != flags || g.seq != seq || g.ack != ack || g.data != 0 {
		r.Fatalf("sent %v flags %#x seq %#x ack %#x; want %v flags %#x seq %#x ack %#x", g.pair, g.flags, g.seq, g.ack, p.back(), flags, seq, ack)
	}
}

func (r *rig) verdict(res Result, v Verdict, c Cause) {
	r.Helper()
	if res.Verdict != v || res.Cause != c {
		r.Fatalf("verdict %v, cause %v; want %v, %v", res.Verdict, res.Cause, v, c)
	}
}

// tick lets time pass.
func (r *rig) tick(d time.Duration) {
	r.now += d
	r.t.Tick(r.now)
}

// count is a counter's value.
func (r *rig) counted(c Cause) int { return int(r.t.Stats().Counters[c]) }

// empty proves that nothing is left of any flow.
func (r *rig) empty() {
	r.Helper()
	s := r.t.Stats()
	if s.Records != 0 || s.HalfOpen != 0 || s.Orphans != 0 || s.States != [NumStates]int{} {
		r.Fatalf("not empty: %+v", s)
	}
	if left := r.t.closed.Load(); left != 0 {
		r.Fatalf("%d closed", left)
	}
	for _, s := range []*sketch{&r.t.sources, &r.t.destinations} {
		for _, row := range s.rows {
			for i := range row {
				if n := row[i].Load(); n != 0 {
					r.Fatalf("a share of %d is left", n)
				}
			}
		}
	}
	for i := range r.t.shards {
		sh := &r.t.shards[i]
		d := sh.index.dir.Load()
		if sh.lists != [numTimers]list{} || len(d.buckets) != 1 || d.buckets[0].Load().n != 0 {
			r.Fatalf("shard %d: lists %v, directory of %d", i, sh.lists, len(d.buckets))
		}
	}
	slabs := 0
	for _, c := range r.t.arena.chunks {
		for i := range c.slabs {
			if c.slabs[i].Load() != nil {
				slabs++
			}
		}
	}
	if slabs*slabRecords > spareRecords+slabRecords {
		r.Fatalf("%d slabs are left", slabs)
	}
}

// tsOpt is a timestamp option as nearly everybody lays it out.
func tsOpt(val, ecr uint32) []byte {
	b := []byte{1, 1, 8, 10}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, val), ecr)
}

// linuxSYN is what Linux's SYN says.
func linuxSYN() []byte {
	o := SYNOptions{MSS: 1400, WindowScale: 8, SACK: true, TS: true, TSVal: clientTS}
	return o.append(nil)
}

// stackSYN is what the stack's SYN says.
func stackSYN() []byte {
	o := SYNOptions{MSS: 1460, WindowScale: 7, SACK: true, TS: true, TSVal: stackTS}
	return o.append(nil)
}

// conn is a connection that the test brought into being.
type conn struct {
	*rig
	p      pair
	h      Handle
	isn    uint32 // what the client was promised
	ts     uint32 // our TSval in the SYN-ACK
	synAck got
	nxt    uint32 // behind what the client sent, since establish
}

// open plays a handshake to the SYN-ACK.
func (r *rig) open(p pair) *conn {
	r.Helper()
	res, _ := r.in(p, seg{flags: syn, seq: irs, wnd: 65000, opts: linuxSYN()})
	if res.Verdict == Dial {
		if !r.t.Answer(res.Handle, r.now) {
			r.Fatal("Answer failed")
		}
	}
	g := r.reply()
	return &conn{rig: r, p: p, h: res.Handle, isn: g.seq, ts: g.tsVal, synAck: g}
}

// ackOf is the client's final ACK, or a segment of data.
func (c *conn) first(data int) seg {
	return seg{flags: ack, seq: irs + 1, ack: c.isn + 1, wnd: 500, opts: tsOpt(clientTS+1, c.ts), data: data}
}

// establish goes on to an endpoint that stands.
func (c *conn) establish() *conn {
	c.Helper()
	res, _ := c.in(c.p, c.first(0))
	c.verdict(res, Create, None)
	c.h = res.Handle
	c.create()
	if ok, gone := c.t.Ready(c.h, c.now); !ok || gone {
		c.Fatal("not ready")
	}
	c.nxt = irs + 1
	return c
}

// create plays the stack's active open.
func (c *conn) create() {
	c.Helper()
	res, _ := c.out(c.p, seg{flags: syn, seq: stackISN, wnd: 65535, opts: stackSYN()})
	c.verdict(res, Swallowed, SwallowedSYN)
	b, ok := c.t.Establish(c.h, c.now, nil)
	if !ok {
		c.Fatal("Establish failed")
	}
	g := decode(c, b)
	if g.pair != c.p || g.flags != syn|ack || g.seq != irs || g.ack != stackISN+1 {
		c.Fatalf("synthetic SYN-ACK %+v", g)
	}
	res, _ = c.out(c.p, seg{flags: ack, seq: stackISN + 1, ack: irs + 1, wnd: 600, opts: tsOpt(stackTS, clientTS)})
	c.verdict(res, Swallowed, SwallowedACK)
}

func addrPort(a [4]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a), port)
}
