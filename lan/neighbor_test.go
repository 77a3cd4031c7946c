package lan

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// model is the table as one would write it without thought for speed.
type model struct {
	max, each int
	all       []*modelEntry // by seen
}

type modelEntry struct {
	key         key
	at          station
	since, seen time.Duration
	proven      bool
}

func (m *model) find(k key) int {
	return slices.IndexFunc(m.all, func(e *modelEntry) bool { return e.key == k })
}

func (m *model) delete(i int) { m.all = slices.Delete(m.all, i, i+1) }

func (m *model) insert(k key, s station, now time.Duration) {
	var own int
	for _, e := range m.all {
		if e.at == s {
			own++
		}
	}
	if own >= m.each {
		m.delete(slices.IndexFunc(m.all, func(e *modelEntry) bool { return e.at == s }))
	} else if len(m.all) >= m.max {
		m.delete(max(0, slices.IndexFunc(m.all, func(e *modelEntry) bool { return !e.proven })))
	}
	m.all = append(m.all, &modelEntry{key: k, at: s, since: now, seen: now})
}

func (m *model) touch(i int, now time.Duration) {
	e := m.all[i]
	e.seen = now
	e.proven = now-e.since >= trustTime
	m.delete(i)
	m.all = append(m.all, e)
}

// TestTable runs random scripts against the table and the model.
func TestTable(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := &model{max: 1 + r.IntN(40), each: 1 + r.IntN(20)}
		var tab table
		tab.init(m.max, m.each)
		now := time.Duration(0)
		for range 2000 {
			now += time.Duration(1 + r.Int64N(int64(300*time.Millisecond)))
			k := keyOf(netip.AddrFrom4([4]byte{198, 18, 0, byte(r.IntN(80))}))
			n, i := tab.find(k), m.find(k)
			if (n != nil) != (i >= 0) || n != nil && n.station() != m.all[i].at {
				t.Fatalf("seed %d: %v is found by one of two", seed, k.addr())
			}
			switch {
			case n == nil:
				s := station(1 + r.IntN(8))
				tab.insert(k, s, now)
				m.insert(k, s, now)
			case r.IntN(10) == 0:
				tab.remove(n)
				m.delete(i)
			default:
				tab.touch(n, now)
				m.touch(i, now)
			}
			if r.IntN(50) == 0 {
				before := now - time.Duration(r.Int64N(int64(20*time.Second)))
				for n, ok := tab.expired(before); ok; n, ok = tab.expired(before) {
					tab.remove(n)
				}
				m.all = slices.DeleteFunc(m.all, func(e *modelEntry) bool { return e.seen <= before })
			}
			checkTable(t, &tab, m)
		}
	}
}

func checkTable(t *testing.T, tab *table, m *model) {
	t.Helper()
	stations := map[station]int{}
	for _, e := range m.all {
		if n := tab.find(e.key); n == nil || n.station() != e.at || n.proven != e.proven || n.seen != e.seen {
			t.Fatalf("%v is %+v, want %+v", e.key.addr(), n, e)
		}
		stations[e.at]++
	}
	seen, ok := tab.quietest()
	if tab.len() != len(m.all) || len(tab.stations) != len(stations) || ok != (len(m.all) > 0) || ok && seen != m.all[0].seen {
		t.Fatalf("%d neighbors of %d stations since %v, want %d of %d", tab.len(), len(tab.stations), seen, len(m.all), len(stations))
	}
	for s, own := range tab.stations {
		if len(own) != stations[s] || len(own) > m.each {
			t.Fatalf("%v has %d neighbors, want %d", s, len(own), stations[s])
		}
	}
}

// TestFlood has one guest invent addresses of its own and another invent stations,
// 100,000 each: those who were there keep their places.
func TestFlood(t *testing.T) {
	r := quiet(t, func(o *Options) {
		o.Addresses = []netip.Prefix{network("10.0.0.1/8"), network("fd00:18::1/64")}
		o.MaxNeighbors, o.MaxPerStation = 100, 20
	})
	honest := func(i int) (MAC, netip.Addr) {
		return MAC{2, 0, 0, 1, 0, byte(i)}, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
	}
	for range 2 {
		for i := range 50 {
			m, a := honest(i)
			r.delivered(dataFrame(m, a, far4))
		}
		r.advance(2 * trustTime)
	}
	for i := range uint32(100_000) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|2<<16+i)
		m := guestA
		if i%2 == 0 {
			m = MAC{6, 0, a[0], a[1], a[2], a[3]}
		}
		r.delivered(dataFrame(m, netip.AddrFrom4(a), far4))
	}
	for i := range 50 {
		m, a := honest(i)
		r.at(a, m)
	}
	s := r.l.Stats()
	if s.Neighbors != 100 || s.Events[EventEvicted] != 100_000-50 {
		t.Errorf("%+v", s)
	}
}

// TestExpiry forgets who is silent, and only them.
func TestExpiry(t *testing.T) {
	r := quiet(t, func(o *Options) { o.NeighborTTL = 10 * time.Second })
	r.delivered(dataFrame(guestA, a4, far4), dataFrame(guestB, b4, far4))
	for range 20 {
		r.advance(time.Second)
		r.delivered(dataFrame(guestA, a4, far4))
	}
	r.at(a4, guestA)
	r.at(b4, MAC{})
	r.event(EventExpired, 1)
	r.advance(10 * time.Second)
	r.at(a4, MAC{})
	if s := r.l.Stats(); s.Neighbors != 0 || s.Stations != 0 {
		t.Errorf("%+v", s)
	}
}

// TestKeys makes the same address of a key again.
func TestKeys(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "198.18.0.1", "255.255.255.255", "::", "fd00:18::1", "fe80::1", "::ffff:1.2.3.4"} {
		if a := ip(s); keyOf(a).addr() != a {
			t.Errorf("%v became %v", a, keyOf(a).addr())
		}
	}
	for _, m := range []MAC{{}, gateway, broadcast(), {0xfe, 1, 2, 3, 4, 5}} {
		if stationOf(m[:]).mac() != m {
			t.Errorf("%v became %v", m, stationOf(m[:]).mac())
		}
	}
}
