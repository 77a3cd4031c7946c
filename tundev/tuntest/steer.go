package tuntest

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"

	"github.com/tungate/tungate/offload"
	"github.com/tungate/tungate/tundev"
)

// maxFlows is how many flows a device remembers the queue of, as many as a TUN
// (tun.c, MAX_TAP_FLOWS).
const maxFlows = 4096

// steering chooses the queue that a frame is read from.
type steering struct {
	tap    bool
	queues int
	seed   maphash.Seed

	mu   sync.Mutex
	last map[uint64]int // the queue a flow was last written to, by its hash
}

func (s *steering) init(o Options) {
	s.tap, s.queues = o.Kind == tundev.TAP, o.Queues
	s.seed = maphash.MakeSeed()
	s.last = map[uint64]int{}
}

// learn notes that a frame was written to a queue.
func (s *steering) learn(frame []byte, queue int) {
	if s.queues == 1 {
		return
	}
	h := s.hash(frame)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.last[h]; known || len(s.last) < maxFlows {
		s.last[h] = queue
	}
}

// choose returns the queue that a frame is read from.
func (s *steering) choose(frame []byte) int {
	if s.queues == 1 {
		return 0
	}
	h := s.hash(frame)
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, known := s.last[h]; known {
		return q
	}
	return int(h % uint64(s.queues)) //nolint:gosec // at least 1
}

// hash is the same for both directions of a flow. Frames that are no IP are one.
func (s *steering) hash(frame []byte) uint64 {
	l3 := HdrLen
	if s.tap {
		l3 += 14
	}
	var p offload.Packet
	if len(frame) <= l3 || offload.Parse(&p, frame[l3:], len(frame)-l3) != offload.OK {
		return 0
	}
	return s.end(p.Src, p.SrcPort) + s.end(p.Dst, p.DstPort) + uint64(p.Proto)
}

// end hashes one side of a flow.
func (s *steering) end(addr netip.Addr, port uint16) uint64 {
	var b [18]byte
	a := addr.As16()
	copy(b[:], a[:])
	binary.BigEndian.PutUint16(b[16:], port)
	return maphash.Bytes(s.seed, b[:])
}
