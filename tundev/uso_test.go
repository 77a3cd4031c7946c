package tundev_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// TestUSO receives a UDP superframe whole with uso on, and cuts it into the
// datagrams that the kernel itself makes with uso off.
func TestUSO(t *testing.T) {
	payload := make([]byte, 40_000)
	for i := range payload {
		payload[i] = byte(i * 7 >> 3)
	}
	const size = 1200
	whole := sendSegmented(t, tundev.On, payload, size)
	cut := sendSegmented(t, tundev.Off, payload, size)
	if len(whole) != 1 || len(cut) != (len(payload)+size-1)/size {
		t.Fatalf("%d frames with uso on and %d with uso off", len(whole), len(cut))
	}
	var h offload.Hdr
	var p offload.Packet
	super := whole[0][offload.HdrLen:]
	if h.Decode(whole[0]); h.GSOType != offload.GSOUDPL4 || h.GSOSize != size {
		t.Fatalf("header %+v", h)
	}
	if v := offload.Parse(&p, super, len(super)); v != offload.OK {
		t.Fatal(v)
	}
	var s offload.Segmenter
	if v := s.Reset(&h, &p, super, nil); v != offload.OK {
		t.Fatal(v)
	}
	var seg offload.Segment
	for i := range cut {
		if !s.Next(&seg) {
			t.Fatalf("%d segments, want %d", i, len(cut))
		}
		got := append(bytes.Clone(seg.Head), bytes.Join(seg.Payload, nil)...)
		if want := complete(t, cut[i]); !sameDatagram(got, want) {
			t.Fatalf("segment %d:\n got % x\nwant % x", i, got[:48], want[:48])
		}
	}
	if s.Next(&seg) {
		t.Error("one segment too many")
	}
}

// sendSegmented sends a payload with UDP_SEGMENT through a device with uso on or
// off, and returns its frames.
func sendSegmented(t *testing.T, uso tundev.Mode, payload []byte, size int) (frames [][]byte) {
	t.Helper()
	ns := quiet(t)
	d := create(t, ns, tundev.Options{
		Name: "tun0", Queues: 1, Offload: tundev.Offload{USO: uso},
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")},
	})
	pc, err := ns.ListenPacket("198.18.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	rc, err := pc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)
	}), err); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteTo(payload, &net.UDPAddr{IP: net.IPv4(198, 19, 0, 9), Port: 53}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, offload.HdrLen+65535)
	for {
		n, err := d.Queues()[0].TryReadFrame(iov(b, offload.HdrLen))
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		var p offload.Packet
		if offload.Parse(&p, b[offload.HdrLen:n], n-offload.HdrLen) == offload.OK && p.DstPort == 53 {
			frames = append(frames, bytes.Clone(b[:n]))
		}
	}
}

// complete returns a frame's packet with its checksum computed.
func complete(t *testing.T, frame []byte) []byte {
	t.Helper()
	var h offload.Hdr
	h.Decode(frame)
	packet := frame[offload.HdrLen:]
	if h.Flags&offload.FlagNeedsCsum != 0 && !offload.Complete(&h, [][]byte{packet}) {
		t.Fatalf("header %+v", h)
	}
	return packet
}

// sameDatagram compares two packets but for the IPv4 identification, which is each
// sender's own, and with it the header checksum.
func sameDatagram(a, b []byte) bool {
	for _, p := range [][]byte{a, b} {
		if ^offload.Sum(p[:20], 0) != 0 {
			return false
		}
		binary.BigEndian.PutUint16(p[4:], 0)
		binary.BigEndian.PutUint16(p[10:], 0)
	}
	return bytes.Equal(a, b)
}

// TestSuperframesRefused: a kernel that takes TSO and refuses superframes, as 6.6.44
// did, gets none of the version, and is asked for none.
func TestSuperframesRefused(t *testing.T) {
	for _, c := range []struct {
		o      tundev.Offload
		refuse string // versions
		err    error
		want   tundev.Features
		say    string
	}{
		{refuse: "4", err: unix.EINVAL, want: tundev.Features{VnetHdr: true, Checksum: true, TSO6: true, ECN: true, USO: true}, say: "device.offload.tso4"},
		{refuse: "6", err: unix.EINVAL, want: tundev.Features{VnetHdr: true, Checksum: true, TSO4: true, ECN: true, USO: true}, say: "device.offload.tso6"},
		{refuse: "46", err: unix.EINVAL, want: tundev.Features{VnetHdr: true, Checksum: true}, say: "device.offload.tso4"},
		{refuse: "46", err: unix.ENOBUFS, want: allFeatures, say: "could not be tried"},
		{o: tundev.Offload{TSO6: tundev.On}, refuse: "6", err: unix.EINVAL, say: "auto or off"},
	} {
		ns := quiet(t)
		d := create(t, ns, tundev.Options{Name: "dev0", Offload: c.o})
		err := d.ProveWith(func(version uint8) error {
			if strings.ContainsRune(c.refuse, rune('0'+version)) {
				return c.err
			}
			return nil
		})
		if c.o.TSO6 == tundev.On {
			if err == nil || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "device.offload.tso6") {
				t.Errorf("on: %v", err)
			}
			continue
		}
		if err != nil || d.Features() != c.want || len(d.Notes()) != len(c.refuse) || !strings.Contains(d.Notes()[0], c.say) {
			t.Errorf("%s, %v: %v, notes %q, %v", c.refuse, c.err, d.Features(), d.Notes(), err)
		}
		checkKernelFeatures(t, ns, c.want)
	}
}
