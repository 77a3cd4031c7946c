package minisock

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// key is a flow as the client sends it: a is its source, b its destination. It is
// 36 bytes of a record.
type key struct {
	aHi, aLo, bHi, bLo uint64
	ports              uint32 // client's in the upper half
}

// v4Mark is the upper half of an IPv4 address. As an IPv6 address it would be a
// multicast one, so no flow of the one family is taken for one of the other.
const v4Mark = ^uint64(0)

// of reads the addresses of an IP header and the ports of a TCP header; both were
// checked for length. outbound says that the gateway is the source.
func (k *key) of(ip, tcp []byte, outbound bool) {
	ports := binary.BigEndian.Uint32(tcp)
	if ip[0]>>4 == 4 {
		k.aHi, k.bHi = v4Mark, v4Mark
		k.aLo, k.bLo = uint64(binary.BigEndian.Uint32(ip[12:])), uint64(binary.BigEndian.Uint32(ip[16:]))
	} else {
		_ = ip[39]
		k.aHi, k.aLo = binary.BigEndian.Uint64(ip[8:]), binary.BigEndian.Uint64(ip[16:])
		k.bHi, k.bLo = binary.BigEndian.Uint64(ip[24:]), binary.BigEndian.Uint64(ip[32:])
	}
	if outbound {
		k.aHi, k.bHi = k.bHi, k.aHi
		k.aLo, k.bLo = k.bLo, k.aLo
		ports = bits.RotateLeft32(ports, 16)
	}
	k.ports = ports
}

func (k *key) v4() bool { return k.aHi == v4Mark }

func (k *key) client() netip.AddrPort {
	return netip.AddrPortFrom(addr(k.aHi, k.aLo), uint16(k.ports>>16))
}

func (k *key) destination() netip.AddrPort {
	return netip.AddrPortFrom(addr(k.bHi, k.bLo), uint16(k.ports&0xffff))
}

func addr(hi, lo uint64) netip.Addr {
	var b [16]byte
	if hi == v4Mark {
		binary.BigEndian.PutUint32(b[:], uint32(lo&0xffffffff))
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	binary.BigEndian.PutUint64(b[:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// source is what counts as one client where shares are kept: an IPv4 address, or
// the /64 of an IPv6 address, since whoever has one address of it has them all.
func (k *key) source() (hi, lo uint64) {
	if k.v4() {
		return k.aHi, k.aLo
	}
	return k.aHi, 0
}

// seed keys a hash that nobody outside can aim at.
type seed [4]uint64

// mix is the folded multiplication of wyhash: each bit of the result hangs on every
// bit of a and b.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// flow hashes a whole key.
func (s *seed) flow(k *key) uint64 {
	h := mix(k.aLo^s[0], k.bLo^s[1])
	if !k.v4() {
		h = mix(h^k.aHi, s[2]^k.bHi)
	}
	return mix(h^uint64(k.ports)^s[3], s[2])
}

// address hashes one address or prefix.
func (s *seed) address(hi, lo uint64) uint64 {
	return mix(mix(hi^s[0], lo^s[1])^s[2], s[3])
}
