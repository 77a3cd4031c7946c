package link

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/offload"
)

// A packet larger than the link's MTU that is no superframe comes from a client
// with another idea of the MTU than the device's. It is told (RFC 1191, section 4;
// RFC 4443, section 3.2), or its connections hang as soon as packets go the other
// way. An IPv4 packet that may be fragmented would have been by a router, and is
// taken as it is.

const (
	// tooBigRate and tooBigBurst limit the answers, as Linux's
	// icmp_msgs_per_sec and icmp_msgs_burst do.
	tooBigRate  = 1000
	tooBigBurst = 50

	icmpHdrLen = 8
	// quoteMax keeps an answer within the smallest MTU a link may have (RFC
	// 1812, section 4.3.2.3: 576; RFC 4443, section 2.4(c): 1280).
	quoteMax4 = 576 - 20 - icmpHdrLen
	quoteMax6 = headMax
)

// tooBig limits the answers to packets that are too big: a bucket of tokens.
type tooBig struct {
	mu     sync.Mutex
	tokens float64
	last   time.Time
}

func (b *tooBig) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(tooBigBurst, b.tokens+now.Sub(b.last).Seconds()*tooBigRate)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// oversize reports whether p, whose first bytes are ip, may not pass a link of this
// MTU.
func (e *Endpoint) oversize(h *offload.Hdr, p *offload.Packet, ip []byte) bool {
	if h.GSOType != offload.GSONone || p.Len <= int(e.mtu.Load()) {
		return false
	}
	const dontFragment = 0x40
	return p.Version == 6 || ip[6]&dontFragment != 0
}

// refuseTooBig answers p with the link's MTU.
func (q *queue) refuseTooBig(p *offload.Packet, ip []byte) {
	q.e.drop(DropTooBig)
	if !q.e.big.allow(q.e.clock.Now()) {
		return
	}
	var answer []byte
	if p.Version == 4 {
		answer = tooBigV4(p, ip[:min(len(ip), quoteMax4)], q.e.MTU())
	} else {
		answer = tooBigV6(p, ip[:min(len(ip), quoteMax6)], q.e.MTU())
	}
	q.sendPacket(p.Src, answer)
}

// sendPacket writes an IP packet to dst.
func (q *queue) sendPacket(dst netip.Addr, packet []byte) {
	if t := q.e.lan; t != nil {
		t.sendPacket(q, dst, packet)
		return
	}
	var hdr [hdrLen]byte
	if err := q.backlog.write([]unix.Iovec{vector(&hdr[0], hdrLen), vector(&packet[0], len(packet))}); err != nil {
		q.e.dropWrite(err)
		return
	}
	q.counters.tx.count(len(packet), false, false)
}

// tooBigV4 is ICMP destination unreachable, fragmentation needed and DF set.
func tooBigV4(p *offload.Packet, quoted []byte, mtu uint32) []byte {
	const ipLen = 20
	b := make([]byte, ipLen+icmpHdrLen, ipLen+icmpHdrLen+len(quoted))
	b = append(b, quoted...)
	b[0], b[8], b[9] = 0x45, 64, offload.ProtoICMP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b))) //nolint:gosec // at most 576
	src, dst := p.Dst.As4(), p.Src.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], ^offload.Sum(b[:ipLen], 0))
	icmp := b[ipLen:]
	icmp[0], icmp[1] = 3, 4
	binary.BigEndian.PutUint16(icmp[6:], uint16(min(mtu, 65535)))
	binary.BigEndian.PutUint16(icmp[2:], ^offload.Sum(icmp, 0))
	return b
}

// tooBigV6 is ICMPv6 packet too big.
func tooBigV6(p *offload.Packet, quoted []byte, mtu uint32) []byte {
	const ipLen = 40
	b := make([]byte, ipLen+icmpHdrLen, ipLen+icmpHdrLen+len(quoted))
	b = append(b, quoted...)
	b[0], b[6], b[7] = 0x60, offload.ProtoICMPv6, 64
	icmp := b[ipLen:]
	binary.BigEndian.PutUint16(b[4:], uint16(len(icmp))) //nolint:gosec // small
	src, dst := p.Dst.As16(), p.Src.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	icmp[0] = 2
	binary.BigEndian.PutUint32(icmp[4:], mtu)
	binary.BigEndian.PutUint16(icmp[2:], ^offload.Sum(icmp, offload.PseudoSum(p.Dst, p.Src, offload.ProtoICMPv6, len(icmp))))
	return b
}
