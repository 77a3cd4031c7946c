package minisock

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/tungate/tungate/offload"
)

// prepare makes a table with a flow in the state that n names, and returns its record.
func prepare(t testing.TB, p pair, n uint8) (*rig, Handle) {
	t.Helper()
	r := newRig(t, func(o *Options) {
		o.Backlog = 16 // small tables are made sooner
		o.ResetRate, o.ChallengeRate, o.InvalidInterval = 1e9, 1e9, -1
		o.AlwaysCookies = n%9 == 1
		if n%9 == 2 {
			o.Admission = DialFirst
		}
	})
	switch n % 9 {
	case 0: // no flow
	case 1:
		r.open(p)
	case 2:
		r.in(p, seg{flags: syn, seq: irs, opts: linuxSYN()})
	case 3:
		return r, r.open(p).h
	case 4:
		c := r.open(p)
		r.in(p, c.first(9))
		return r, c.h
	case 5:
		return r, r.open(p).establish().h
	case 6:
		c := r.open(p).establish()
		c.fromStack(fin|ack, 0, 0)
		r.t.Orphan(c.h, r.now)
		return r, c.h
	case 7:
		return r, life(r, p).h
	case 8:
		c := r.open(p).establish()
		c.fromClient(fin|ack, 0, 0)
		return r, c.h
	}
	return r, Handle{}
}

// FuzzPackets gives every state any TCP header. What passes has a right checksum and
// the client's own sequence number; what is sent is decoded by the rig; and all of it
// drains.
func FuzzPackets(f *testing.F) {
	for n := range uint8(9) {
		for _, s := range []seg{
			{flags: syn, seq: irs, opts: linuxSYN()},
			{flags: ack, seq: irs + 1, ack: 7, opts: tsOpt(clientTS, 9), data: 5},
			{flags: rst, seq: irs + 1},
			{flags: fin | ack, seq: irs + 1, opts: []byte{1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		} {
			b := raw(flow4, s)
			f.Add(b[24:], n, n%2 == 0, false)
			f.Add(b[24:], n, n%2 == 1, true)
		}
	}
	f.Fuzz(func(t *testing.T, tcp []byte, n uint8, v6, outbound bool) {
		p := flow4
		if v6 {
			p = flow6
		}
		r, h := prepare(t, p, n)
		r.sent = nil
		q := p
		if outbound {
			q = p.back()
		}
		frame := fuzzFrame(q, tcp)
		var parsed offload.Packet
		if offload.Parse(&parsed, frame, len(frame)) != offload.OK || parsed.L4Len == 0 {
			return
		}
		s := FromPacket(&parsed, &offload.Hdr{}, frame, 1)
		s.Pressed = n > 127
		seq := binary.BigEndian.Uint32(s.TCP[4:])
		r.t.Prefetch([]Segment{s})
		var res Result
		if outbound {
			res = r.t.Outbound(&s, r.now)
			r.silent()
		} else {
			res = r.t.Inbound(&s, r.now)
		}
		if res.Verdict == Pass {
			decode(t, frame)
			if !outbound && binary.BigEndian.Uint32(s.TCP[4:]) != seq {
				t.Fatal("the client's number moved")
			}
		}
		r.t.ICMPError(&Unreachable{Quoted: frame, Hard: true})
		r.t.Drop(res.Handle)
		for _, h := range []Handle{h, res.Handle} {
			r.t.Fail(h)
			r.t.Release(h)
		}
		for range 130 {
			r.tick(time.Second)
		}
		r.empty()
	})
}

// fuzzFrame makes a packet of a flow with any TCP header behind the ports, and a right
// checksum.
func fuzzFrame(p pair, tcp []byte) []byte {
	frame := raw(p, seg{data: max(0, len(tcp)-16)})
	at := 40
	if p.src.Addr().Is4() {
		at = 20
	}
	copy(frame[at+4:], tcp)
	binary.BigEndian.PutUint16(frame[at+16:], 0)
	binary.BigEndian.PutUint16(frame[at+16:], ^naive(frame[at:], pseudo(frame, at)))
	return frame
}
