package netstack_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tungate/tungate/offload"
)

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// middlebox makes another client of gVisor's: its sequence numbers and timestamps
// wrap soon after the connection's begin, it lacks options, and it does not take the
// window of an ACK that was overtaken for news (RFC 9293, section 3.10.7.4, SND.WL2),
// by which gVisor comes to wait for ever. It stands beside the client, so that all
// faults are on the stack's side of it.
type middlebox struct {
	strip   map[byte]bool // kinds of options that SYNs lose
	seq, ts uint32        // what is added to the client's
	known   bool          // seq and ts are
	seqAt   uint32        // where the stack sees numbers begin
	tsAt    uint32
	ack     uint32 // the newest to the client, and its window
	window  uint16
}

func newMiddlebox(rnd *rand.Rand) *middlebox {
	m := &middlebox{
		strip: map[byte]bool{},
		seqAt: -uint32(rnd.IntN(40_000)), // wraps within its first bytes
		tsAt:  -uint32(rnd.IntN(20_000)), // and these within 20 s
	}
	for _, kind := range []byte{header.TCPOptionTS, header.TCPOptionSACKPermitted, header.TCPOptionWS} {
		m.strip[kind] = rnd.IntN(4) == 0
	}
	return m
}

// change rewrites a packet in place, and gives it a new checksum.
func (m *middlebox) change(way int, b []byte, p *offload.Packet) {
	tcp := b[p.L3Len : p.L3Len+p.L4Len]
	syn := p.TCPFlags&offload.TCPSyn != 0
	if way == up && syn && !m.known {
		m.known = true
		m.seq = m.seqAt - binary.BigEndian.Uint32(tcp[4:])
		options(tcp, func(kind byte, o []byte) {
			if kind == header.TCPOptionTS {
				m.ts = m.tsAt - binary.BigEndian.Uint32(o[2:])
			}
		})
	}
	if way == up {
		add(tcp[4:], m.seq)
	} else if p.TCPFlags&offload.TCPAck != 0 {
		add(tcp[8:], -m.seq)
		m.news(syn, tcp)
	}
	options(tcp, func(kind byte, o []byte) { m.option(way, syn, p, kind, o) })
	tcp[16], tcp[17] = 0, 0
	l4 := b[p.L3Len:p.Len]
	sum := ^offload.Sum(l4, offload.PseudoSum(p.Src, p.Dst, offload.ProtoTCP, len(l4)))
	binary.BigEndian.PutUint16(tcp[16:], sum)
}

// news keeps the window of the newest ACK, and gives it to older ones.
func (m *middlebox) news(syn bool, tcp []byte) {
	ack := binary.BigEndian.Uint32(tcp[8:])
	if !syn && ack != m.ack && m.ack-ack < 1<<31 {
		binary.BigEndian.PutUint16(tcp[14:], m.window)
		return
	}
	m.ack, m.window = ack, binary.BigEndian.Uint16(tcp[14:])
}

func (m *middlebox) option(way int, syn bool, p *offload.Packet, kind byte, o []byte) {
	switch {
	case way == up && syn && m.strip[kind]:
		for i := range o {
			o[i] = header.TCPOptionNOP
		}
	case way == up && kind == header.TCPOptionTS:
		add(o[2:], m.ts)
	case way == down && kind == header.TCPOptionTS && p.TCPFlags&offload.TCPAck != 0:
		add(o[6:], -m.ts)
	case way == down && kind == header.TCPOptionSACK:
		for i := 2; i+4 <= len(o); i += 4 {
			add(o[i:], -m.seq)
		}
	}
}

func add(b []byte, n uint32) { binary.BigEndian.PutUint32(b, binary.BigEndian.Uint32(b)+n) }

// options calls f for each option of a TCP header but padding.
func options(tcp []byte, f func(kind byte, option []byte)) {
	for o := tcp[header.TCPMinimumSize:]; len(o) > 0 && o[0] != header.TCPOptionEOL; {
		n := 1
		if o[0] != header.TCPOptionNOP {
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return
			}
			n = int(o[1])
			f(o[0], o[:n])
		}
		o = o[n:]
	}
}
