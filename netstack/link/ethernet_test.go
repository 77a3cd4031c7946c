package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

var (
	guestMAC = lan.MAC{2, 0, 0, 0, 0, 9}
	lanNets  = []netip.Prefix{netip.MustParsePrefix("198.18.0.254/15"), netip.MustParsePrefix("fd00:18::fe/64")}
)

// newTAP is a rig whose device is a TAP with one guest.
func newTAP(t *testing.T, o tuntest.Options) *rig {
	t.Helper()
	o.Kind = tundev.TAP
	l, err := lan.New(lan.Options{Addresses: lanNets}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dev: tuntest.New(o), up: &sink{got: make(chan []byte, 64)}, lan: l}
	r.ep = link.New(link.Options{Device: r.dev, LAN: l})
	r.ep.Attach(r.up)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.ep.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = r.dev.Close()
		<-done
	})
	return r
}

// ethernet puts the header of a frame from the guest before a packet.
func (r *rig) ethernet(packet []byte) []byte {
	h := lan.Header{Dst: r.lan.MAC(), Src: guestMAC, Type: lan.TypeIPv4}
	if packet[0]>>4 == 6 {
		h.Type = lan.TypeIPv6
	}
	f := make([]byte, lan.HdrLen, lan.HdrLen+len(packet))
	h.Encode(f)
	return append(f, packet...)
}

// TestTAPInbound: what the stack gets is the packet without its Ethernet header,
// whatever its size.
func TestTAPInbound(t *testing.T) {
	for name, o := range map[string]tuntest.Options{"whole": {MTU: 65000}, "merging": {MTU: 9000, NoTSO: true}} {
		t.Run(name, func(t *testing.T) {
			r := newTAP(t, o)
			for _, fam := range []struct{ src, dst netip.Addr }{{client4, server4}, {client6, server6}} {
				for _, n := range []int{0, 1, 6, 11, 12, 13, 32, 60, 100, 511, 512, 513, 1400, 8900, 16383, 16384, 40000, 64000} {
					if n+60 > int(o.MTU) {
						continue
					}
					p := tcpPacket(fam.src, fam.dst, random(n))
					f := r.ethernet(p)
					for len(f) < 60 { // Ethernet pads
						f = append(f, 0)
					}
					if got := r.deliver(t, offload.Hdr{}, f); !bytes.Equal(got, p) {
						t.Fatalf("%v, %d bytes of payload: delivered %d bytes that differ from the %d sent", fam.src, n, len(got), len(p))
					}
				}
			}
		})
	}
}

// TestTAPSuperframe moves csum_start behind the Ethernet header both ways.
func TestTAPSuperframe(t *testing.T) {
	r := newTAP(t, tuntest.Options{})
	for _, fam := range []struct {
		src, dst netip.Addr
		typ      offload.GSOType
	}{{client4, server4, offload.GSOTCPv4}, {client6, server6, offload.GSOTCPv6}} {
		p := tcpPacket(fam.src, fam.dst, random(50000))
		l3 := len(p) - 50000 - header.TCPMinimumSize
		h := offload.Hdr{Flags: offload.FlagNeedsCsum, GSOType: fam.typ, GSOSize: 1400, CsumStart: uint16(lan.HdrLen + l3), CsumOffset: 16, HdrLen: uint16(lan.HdrLen + l3 + 20)}
		if got := r.deliver(t, h, r.ethernet(p)); !bytes.Equal(got, p) {
			t.Fatalf("%v: superframe of %d bytes arrived as %d", fam.src, len(p), len(got))
		}
		h.CsumStart = 13
		if got := r.deliver(t, h, r.ethernet(p)); got != nil {
			t.Error("a frame whose checksum begins in the Ethernet header was delivered")
		}
	}
	// The guest is known now, so that what is for it leaves at once.
	pkt := outbound(server4, client4, random(4000), 1400)
	defer pkt.DecRef()
	var list stack.PacketBufferList
	list.PushBack(pkt)
	if _, err := r.ep.WritePackets(list); err != nil {
		t.Fatal(err)
	}
	f := r.recv(t, lan.TypeIPv4)
	var h offload.Hdr
	h.Decode(f)
	if h.CsumStart != lan.HdrLen+header.IPv4MinimumSize || h.HdrLen != lan.HdrLen+header.IPv4MinimumSize+header.TCPMinimumSize || h.GSOType != offload.GSOTCPv4 {
		t.Errorf("sent with %+v", h)
	}
	if got := lan.MAC(f[tuntest.HdrLen:]); got != guestMAC {
		t.Errorf("sent to %v, want %v", got, guestMAC)
	}
}

// recv returns the next frame of this EtherType.
func (r *rig) recv(t *testing.T, ethertype uint16) []byte {
	t.Helper()
	for {
		f := r.dev.Recv(within)
		if f == nil {
			t.Fatal("no frame came out")
		}
		if binary.BigEndian.Uint16(f[tuntest.HdrLen+12:]) == ethertype {
			return f
		}
	}
}

// TestTAPResolves asks for a guest that is not known, and sends what waited once it
// answers.
func TestTAPResolves(t *testing.T) {
	r := newTAP(t, tuntest.Options{})
	r.write(t, []byte("hello"))
	for {
		f := r.recv(t, lan.TypeARP)[tuntest.HdrLen:]
		target := netip.AddrFrom4([4]byte(f[38:42]))
		if target != client4 {
			continue // the gateway announces itself
		}
		reply := bytes.Clone(f[:42])
		copy(reply[0:6], f[6:12])
		copy(reply[6:12], guestMAC[:])
		reply[21] = 2
		copy(reply[22:28], guestMAC[:])
		copy(reply[28:32], f[38:42])
		copy(reply[32:38], f[22:28])
		copy(reply[38:42], f[28:32])
		r.dev.Send(append(make([]byte, tuntest.HdrLen), reply...))
		break
	}
	f := r.recv(t, lan.TypeIPv4)
	if !bytes.HasSuffix(f, []byte("hello")) || lan.MAC(f[tuntest.HdrLen:]) != guestMAC {
		t.Errorf("got %x", f)
	}
}

// TestTAPAnswersARP, also a question in a frame of a device without TSO.
func TestTAPAnswersARP(t *testing.T) {
	for _, o := range []tuntest.Options{{}, {NoTSO: true}} {
		r := newTAP(t, o)
		ask := make([]byte, 42)
		h := lan.Header{Dst: lan.MAC{255, 255, 255, 255, 255, 255}, Src: guestMAC, Type: lan.TypeARP}
		h.Encode(ask)
		copy(ask[14:], []byte{0, 1, 8, 0, 6, 4, 0, 1})
		copy(ask[22:], guestMAC[:])
		guest, gateway := client4.As4(), lanNets[0].Addr().As4()
		copy(ask[28:], guest[:])
		copy(ask[38:], gateway[:])
		r.dev.Send(append(make([]byte, tuntest.HdrLen), ask...))
		for {
			f := r.recv(t, lan.TypeARP)[tuntest.HdrLen:]
			if f[21] == 2 && lan.MAC(f[:6]) == guestMAC {
				if got := lan.MAC(f[22:28]); got != r.lan.MAC() {
					t.Errorf("answered with %v, want %v", got, r.lan.MAC())
				}
				break
			}
		}
	}
}
