package minisock

import "math/bits"

// secret is a key of SipHash.
type secret [2]uint64

// sip is SipHash-2-4 (Aumasson and Bernstein, 2012) of the flow and two words. It is
// what a client must not be able to compute: sequence numbers (RFC 6528), cookies and
// timestamp offsets hang on it, as in Linux.
func (s *secret) sip(k *key, x, y uint64) uint64 {
	v := sipState{
		s[0] ^ 0x736f6d6570736575, s[1] ^ 0x646f72616e646f6d,
		s[0] ^ 0x6c7967656e657261, s[1] ^ 0x7465646279746573,
	}
	v.block(k.aHi)
	v.block(k.aLo)
	v.block(k.bHi)
	v.block(k.bLo)
	v.block(uint64(k.ports)<<32 | x&0xffffffff)
	v.block(y)
	v.block(48 << 56) // the length, in the last block's upper byte
	v[2] ^= 0xff
	v.round()
	v.round()
	v.round()
	v.round()
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

type sipState [4]uint64

func (v *sipState) block(m uint64) {
	v[3] ^= m
	v.round()
	v.round()
	v[0] ^= m
}

func (v *sipState) round() {
	v[0] += v[1]
	v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
	v[0] = bits.RotateLeft64(v[0], 32)
	v[2] += v[3]
	v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
	v[0] += v[3]
	v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
	v[2] += v[1]
	v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
	v[2] = bits.RotateLeft64(v[2], 32)
}
