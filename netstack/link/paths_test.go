package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

// twoQueues is a device made of two.
type twoQueues struct{ *tuntest.Device }

func (d twoQueues) with(other *tuntest.Device) queues {
	return queues{d.Device, append(d.Device.Queues(), other.Queues()...)}
}

type queues struct {
	*tuntest.Device
	all []tundev.Queue
}

func (d queues) Queues() []tundev.Queue { return d.all }

// TestSteering: a flow leaves by the queue it came in on last, for both families
// and whatever other flows do.
func TestSteering(t *testing.T) {
	devs := [2]*tuntest.Device{tuntest.New(tuntest.Options{}), tuntest.New(tuntest.Options{})}
	up := &sink{got: make(chan []byte, 64)}
	ep := link.New(link.Options{Device: twoQueues{devs[0]}.with(devs[1])})
	ep.Attach(up)
	done := make(chan error, 1)
	go func() { done <- ep.Run(context.Background()) }()
	for round := range 3 {
		for port := range 200 {
			src, dst := client4, server4
			if port%2 == 1 {
				src, dst = client6, server6
			}
			n := (port/2 + round) % 2
			p := tcpPacket(src, dst, nil)
			l4 := p[len(p)-header.TCPMinimumSize:]
			binary.BigEndian.PutUint16(l4, uint16(30000+port))
			clear(l4[16:18])
			binary.BigEndian.PutUint16(l4[16:], ^offload.Sum(l4, offload.PseudoSum(src, dst, offload.ProtoTCP, len(l4))))
			devs[n].Send(append(make([]byte, tuntest.HdrLen), p...))
			<-up.got

			pkt := outbound(dst, src, []byte("x"), 0)
			tcp := header.TCP(pkt.TransportHeader().Slice())
			tcp.SetSourcePort(80)
			tcp.SetDestinationPort(uint16(30000 + port))
			var list stack.PacketBufferList
			list.PushBack(pkt)
			if _, err := ep.WritePackets(list); err != nil {
				t.Fatal(err)
			}
			pkt.DecRef()
			if f := devs[n].Recv(within); f == nil {
				t.Fatalf("round %d, port %d: nothing left by queue %d", round, 30000+port, n)
			}
		}
	}
	for i, q := range ep.Stats().Queues {
		if q.Rx.Frames != 300 || q.Tx.Frames != 300 {
			t.Errorf("queue %d counted %d frames in and %d out, want 300 each", i, q.Rx.Frames, q.Tx.Frames)
		}
	}
	for _, d := range devs {
		_ = d.Close()
	}
	<-done
}

// TestTooBig answers what a link of this MTU cannot carry with the ICMP that says
// so, and takes what may be fragmented.
func TestTooBig(t *testing.T) {
	r := newRig(t, tuntest.Options{MTU: 1400})
	small, big := random(1300), random(1380)
	df := func(p []byte) []byte {
		ip := header.IPv4(p)
		ip.SetFlagsFragmentOffset(header.IPv4FlagDontFragment, 0)
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		return p
	}
	for _, p := range [][]byte{df(tcpPacket(client4, server4, small)), tcpPacket(client4, server4, big), tcpPacket(client6, server6, small)} {
		if got := r.deliver(t, offload.Hdr{}, p); !bytes.Equal(got, p) {
			t.Errorf("a packet of %d bytes was not delivered", len(p))
		}
	}
	for _, c := range []struct {
		packet   []byte
		typ      uint8
		src, dst netip.Addr
	}{{df(tcpPacket(client4, server4, big)), 3, server4, client4}, {tcpPacket(client6, server6, big), 2, server6, client6}} {
		if r.deliver(t, offload.Hdr{}, c.packet) != nil {
			t.Fatal("a packet too big was delivered")
		}
		f := r.dev.Recv(within)[tuntest.HdrLen:]
		var p offload.Packet
		if v := offload.Parse(&p, f, len(f)); v != offload.OK || !offload.VerifyTransport(&p, [][]byte{f}) {
			t.Fatalf("the answer %x is no valid packet: %v", f, v)
		}
		icmp := f[p.L3Len:]
		if p.Src != c.src || p.Dst != c.dst || icmp[0] != c.typ || binary.BigEndian.Uint16(icmp[6:]) != 1400 {
			t.Errorf("answered %v > %v: %x", p.Src, p.Dst, icmp[:8])
		}
		if quoted := icmp[8:]; !bytes.HasPrefix(c.packet, quoted) || len(quoted) < 28 {
			t.Errorf("quotes %x", quoted)
		}
	}
	if n := r.ep.Stats().Drops[link.DropTooBig]; n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
}

// TestSplit makes datagrams of a UDP superframe.
func TestSplit(t *testing.T) {
	for _, o := range []tuntest.Options{{}, {Kind: tundev.TAP}} {
		r := newSplitRig(t, o)
		for _, fam := range []struct{ src, dst netip.Addr }{{client4, server4}, {client6, server6}} {
			for _, n := range []int{1200, 3000, 50000} {
				r.split(t, fam.src, fam.dst, n)
			}
			for range smallFrames {
				r.split(t, fam.src, fam.dst, 1200)
			}
			r.split(t, fam.src, fam.dst, 50000) // read in one piece
		}
		const want = 2 * (3 + smallFrames + 1)
		if rx := r.ep.Stats().Queues[0].Rx; rx.Split != want || rx.Frames != want {
			t.Errorf("%v: counted %+v", o.Kind, rx)
		}
	}
}

func newSplitRig(t *testing.T, o tuntest.Options) *rig {
	t.Helper()
	if o.Kind == tundev.TAP {
		return newTAP(t, o)
	}
	return newRig(t, o)
}

// split sends a superframe of n bytes and wants them back in datagrams of 1000.
func (r *rig) split(t *testing.T, src, dst netip.Addr, n int) {
	t.Helper()
	const size = 1000
	payload := random(n)
	udp := make([]byte, header.UDPMinimumSize+n)
	header.UDP(udp).Encode(&header.UDPFields{SrcPort: 5000, DstPort: 53, Length: uint16(len(udp))})
	copy(udp[header.UDPMinimumSize:], payload)
	p := ipPacket(src, dst, offload.ProtoUDP, udp)
	h := offload.Hdr{Flags: offload.FlagNeedsCsum, GSOType: offload.GSOUDPL4, GSOSize: size, CsumStart: uint16(len(p) - len(udp)), CsumOffset: offload.CsumOffsetUDP}
	if r.lan != nil {
		h.CsumStart += 14
		p = r.ethernet(p)
	}
	first := r.deliver(t, h, p)
	var got []byte
	for d := first; ; d = <-r.up.got {
		var q offload.Packet
		if v := offload.Parse(&q, d, len(d)); v != offload.OK || q.PayloadLen > size || !offload.VerifyTransport(&q, [][]byte{d}) {
			t.Fatalf("a datagram of %d bytes: %v", len(d), v)
		}
		got = append(got, d[q.L3Len+q.L4Len:]...)
		if q.PayloadLen < size || len(got) >= n {
			break
		}
	}
	if !bytes.Equal(got, payload) {
		t.Errorf("%v: %d bytes came out as %d", src, n, len(got))
	}
}
