package link

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// endless is a device that has one frame again and again, and takes everything.
type endless struct {
	frame    []byte
	left     int
	pieces   int // of the memory the last frame was read to
	features tundev.Features
}

func (d *endless) Kind() tundev.Kind                   { return tundev.TUN }
func (d *endless) Queues() []tundev.Queue              { return []tundev.Queue{d} }
func (d *endless) Features() tundev.Features           { return d.features }
func (d *endless) MTU() tundev.MTU                     { return 1500 }
func (d *endless) FD() int                             { return -1 }
func (d *endless) WriteFrame([]unix.Iovec) error       { return nil }
func (d *endless) ReadFrame([]unix.Iovec) (int, error) { return 0, tundev.ErrGone }

func (d *endless) TryReadFrame(iov []unix.Iovec) (n int, err error) {
	if d.left == 0 {
		return 0, unix.EAGAIN
	}
	d.left--
	d.pieces = len(iov)
	for _, v := range iov {
		n += copy(unsafe.Slice(v.Base, v.Len), d.frame[n:])
	}
	return n, nil
}

// nobody is a stack that has no use for anything.
type nobody struct{}

func (nobody) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
func (nobody) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer)    {}

// segment is a frame with a TCP segment of n bytes of payload, GSO size mss unless
// that is 0, and its packet.
func segment(n int, mss uint16) []byte {
	const l3, l4 = header.IPv4MinimumSize, header.TCPMinimumSize
	f := make([]byte, hdrLen+l3+l4+n)
	h := offload.Hdr{Flags: offload.FlagNeedsCsum, CsumStart: l3, CsumOffset: offload.CsumOffsetTCP}
	if mss > 0 {
		h.GSOType, h.GSOSize = offload.GSOTCPv4, mss
	}
	h.Encode(f)
	ip := header.IPv4(f[hdrLen:])
	src, dst := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("192.0.2.1")
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: offload.ProtoTCP, SrcAddr: tcpip.AddrFrom4(src.As4()), DstAddr: tcpip.AddrFrom4(dst.As4())})
	ip.SetFlagsFragmentOffset(header.IPv4FlagDontFragment, 0)
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(ip[l3:])
	tcp.Encode(&header.TCPFields{SrcPort: 40000, DstPort: 80, SeqNum: 1, AckNum: 1, DataOffset: l4, Flags: header.TCPFlagAck, WindowSize: 100})
	return f
}

// BenchmarkFrames moves frames of each kind each way, and fails if that allocates
// in steady state. It is no test, because the race detector makes pools forget.
func BenchmarkFrames(b *testing.B) {
	defer refs.SetLeakMode(refs.GetLeakMode())
	refs.SetLeakMode(refs.NoLeakChecking) // it allocates
	for _, c := range []struct {
		name  string
		frame []byte
		tso   bool
	}{
		{"small", segment(24, 0), true},
		{"mtu", segment(1400, 0), true},
		{"superframe", segment(60000, 1400), true},
		{"merging", segment(1400, 0), false},
	} {
		d := &endless{frame: c.frame, features: tundev.Features{VnetHdr: true, Checksum: true, TSO4: c.tso, TSO6: c.tso}}
		e := New(Options{Device: d})
		e.Attach(nobody{})
		b.Run(c.name+"/in", func(b *testing.B) { inbound(b, e, d) })
		pkt := outboundPacket(c.frame)
		var list stack.PacketBufferList
		list.PushBack(pkt)
		b.Run(c.name+"/out", func(b *testing.B) { steady(b, 1, func() { _, _ = e.WritePackets(list) }) })
		pkt.DecRef()
	}
}

func inbound(b *testing.B, e *Endpoint, d *endless) {
	const frames = 64
	q := e.device.Load().queues[0]
	defer q.receiver.release()
	steady(b, frames, func() {
		for d.left = frames; d.left > 0; {
			if err := q.batch(0); err != nil {
				b.Fatal(err)
			}
		}
	})
	for reason, n := range e.Stats().Drops {
		if n > 0 {
			b.Fatalf("%d frames dropped: %v", n, DropReason(reason))
		}
	}
}

// steady measures f, which moves a number of frames, and holds its allocations.
func steady(b *testing.B, frames int, f func()) {
	b.Helper()
	// A garbage collection empties pools now and then.
	if per := testing.AllocsPerRun(200, f) / float64(frames); per > 0.02 {
		b.Fatalf("%.2f allocations a frame, want none", per)
	}
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*frames), "ns/frame")
}

// outboundPacket is the packet of a frame as the stack would send it.
func outboundPacket(frame []byte) *stack.PacketBuffer {
	const l3, l4 = header.IPv4MinimumSize, header.TCPMinimumSize
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: l3 + l4, Payload: buffer.MakeWithData(frame[hdrLen+l3+l4:])})
	copy(pkt.TransportHeader().Push(l4), frame[hdrLen+l3:])
	copy(pkt.NetworkHeader().Push(l3), frame[hdrLen:])
	pkt.TransportProtocolNumber, pkt.NetworkProtocolNumber = header.TCPProtocolNumber, header.IPv4ProtocolNumber
	if mss := binary.NativeEndian.Uint16(frame[4:]); mss > 0 {
		pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: mss, L3HdrLen: l3}
	}
	return pkt
}

// TestSmallFramePins: what a frame of 64 bytes keeps of memory until the stack has
// done with it, beside the stack's own PacketBuffer.
func TestSmallFramePins(t *testing.T) {
	var held []*stack.PacketBuffer
	for _, tso := range []bool{true, false} {
		d := &endless{frame: segment(24, 0), features: tundev.Features{Checksum: true, TSO4: tso, TSO6: tso}}
		e := New(Options{Device: d})
		e.Attach(keeper{&held})
		q := e.device.Load().queues[0]
		d.left = 8
		if err := q.batch(0); err != nil {
			t.Fatal(err)
		}
		q.receiver.release()
	}
	for _, pkt := range held {
		views, _ := pkt.AsViewList()
		pinned := 0
		for v := views.Front(); v != nil; v = v.Next() {
			pinned += v.Capacity() + int(unsafe.Sizeof(*v))
		}
		if pinned > 512 {
			t.Errorf("a frame of 64 bytes pins %d", pinned)
		}
		pkt.DecRef()
	}
	if len(held) == 0 {
		t.Error("nothing was delivered")
	}
}

// TestPieces: small frames are read in one piece, superframes so that their payload
// need not be copied, and one of the other kind does not change that for long.
func TestPieces(t *testing.T) {
	small, large := segment(1400, 0), segment(60000, 1400)
	d := &endless{features: tundev.Features{Checksum: true, TSO4: true, TSO6: true}}
	e := New(Options{Device: d})
	e.Attach(nobody{})
	q := e.device.Load().queues[0]
	defer q.receiver.release()
	for i, step := range []struct {
		frame []byte
		n     int
		want  int // pieces of the last
	}{{small, 1, 2}, {small, smallRun, 1}, {large, 1, 1}, {large, 1, 2}, {small, smallRun, 2}, {large, 1, 1}, {small, 1, 2}} {
		for range step.n {
			d.frame, d.left = step.frame, 1
			if err := q.batch(0); err != nil {
				t.Fatal(err)
			}
		}
		if d.pieces != step.want {
			t.Errorf("step %d: %d frames of %d bytes, the last in %d pieces, want %d", i, step.n, len(step.frame), d.pieces, step.want)
		}
	}
	// What the payload was read to is the stack's now.
	var held []*stack.PacketBuffer
	e.Attach(keeper{&held})
	at := q.receiver.(*wholeReceiver).body.BasePtr()
	d.frame, d.left = large, 1
	if err := q.batch(0); err != nil {
		t.Fatal(err)
	}
	views, _ := held[0].AsViewList()
	if views.Back().BasePtr() != at {
		t.Error("a superframe was copied")
	}
	held[0].DecRef()
}

// keeper is a stack that keeps every packet.
type keeper struct{ held *[]*stack.PacketBuffer }

func (k keeper) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	*k.held = append(*k.held, pkt.IncRef())
}
func (keeper) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
