package lan

import (
	"encoding/binary"
	"fmt"
	"net"
)

// The EtherTypes this package knows (IEEE registration authority).
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeIPv6 = 0x86dd

	typeVLAN  = 0x8100 // IEEE 802.1Q
	typeQinQ  = 0x88a8 // IEEE 802.1ad
	typeVLAN2 = 0x9100 // the same before it had a number
)

// HdrLen is the length of an Ethernet header: two addresses and the EtherType.
const HdrLen = 14

// MAC is a 48-bit Ethernet address. The zero value is no station's address.
type MAC [6]byte

// String writes m as ip(8) does.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts six bytes in hex with colons, or another form of
// net.ParseMAC.
func (m *MAC) UnmarshalText(b []byte) error {
	a, err := net.ParseMAC(string(b))
	if err != nil || len(a) != len(m) {
		return fmt.Errorf("%q is not an Ethernet address, such as 02:00:00:00:00:01", b)
	}
	*m = MAC(a)
	return nil
}

// IsGroup reports whether m stands for many stations: broadcast or multicast.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// station is a MAC in the low 48 bits of an integer, which fits an atomic.
type station uint64

// groupBit is that of MAC.IsGroup.
const groupBit = 1 << 40

func stationOf(b []byte) station {
	return station(binary.BigEndian.Uint16(b))<<32 | station(binary.BigEndian.Uint32(b[2:]))
}

func (s station) mac() MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(s))
	return MAC(b[2:])
}

// Header is an Ethernet header without VLAN tags.
type Header struct {
	Dst, Src MAC
	Type     uint16
}

// Decode reads h from the first HdrLen bytes of b and reports whether they are
// there.
func (h *Header) Decode(b []byte) (ok bool) {
	if len(b) < HdrLen {
		return false
	}
	h.Dst, h.Src = MAC(b[0:6]), MAC(b[6:12])
	h.Type = binary.BigEndian.Uint16(b[12:])
	return true
}

// Encode writes h to the first HdrLen bytes of b, which must be there.
func (h *Header) Encode(b []byte) {
	b = b[:HdrLen]
	copy(b[0:6], h.Dst[:])
	copy(b[6:12], h.Src[:])
	binary.BigEndian.PutUint16(b[12:], h.Type)
}

// broadcast is all stations.
func broadcast() MAC { return MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// newFrame returns a frame of ours of n bytes behind its header.
func newFrame(h Header, n int) (frame, body []byte) {
	frame = make([]byte, HdrLen+n)
	h.Encode(frame)
	return frame, frame[HdrLen:]
}
