package lan

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// crowd makes n guests send, each with an address of each family, and returns their
// addresses.
func crowd(r *rig, n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i := range n {
		m := MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		r.in(dataFrame(m, a, far4))
		addrs[i] = a
	}
	return addrs
}

func wide(o *Options) {
	o.Addresses = []netip.Prefix{network("10.0.0.1/8"), network("fd00:18::1/64")}
}

// TestAllocs: a data frame in and an address looked up allocate nothing.
func TestAllocs(t *testing.T) {
	r := quiet(t, wide)
	addrs := crowd(r, 100)
	f4, f6 := dataFrame(guestA, ip("10.9.9.9"), far4), dataFrame(guestA, a6, far6)
	r.delivered(f4, f6)
	for name, f := range map[string]func(){
		"Input of IPv4": func() { r.l.Input(Frame{Data: f4}, r.now, r.send) },
		"Input of IPv6": func() { r.l.Input(Frame{Data: f6}, r.now, r.send) },
		"Input of a frame to touch": func() {
			r.now = r.now.Add(2 * trustTime)
			r.l.Input(Frame{Data: f4}, r.now, r.send)
		},
		"Lookup":         func() { r.l.Lookup(addrs[50]) },
		"Lookup of IPv6": func() { r.l.Lookup(a6) },
		"Next":           func() { r.l.Next() },
		"Tick":           func() { r.l.Tick(r.now, r.send) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func benchmarkInput(b *testing.B, f []byte) {
	r := quiet(b, wide)
	crowd(r, 1000)
	r.delivered(f)
	for b.Loop() {
		if r.l.Input(Frame{Data: f, Len: 65000}, r.now, r.send) != Deliver {
			b.Fatal("dropped")
		}
	}
}

func BenchmarkInput4(b *testing.B) { benchmarkInput(b, dataFrame(guestA, ip("10.9.9.9"), far4)) }
func BenchmarkInput6(b *testing.B) { benchmarkInput(b, dataFrame(guestA, a6, far6)) }

// BenchmarkInputFlood is a guest that invents an address for each frame, in a full
// table.
func BenchmarkInputFlood(b *testing.B) {
	r := quiet(b, wide)
	f := dataFrame(guestA, ip("10.2.0.0"), far4)
	for i := range 5000 {
		binary.BigEndian.PutUint16(f[28:], uint16(i))
		r.delivered(f)
	}
	i := uint32(0)
	for b.Loop() {
		i++
		binary.BigEndian.PutUint32(f[26:], 10<<24|i&0xffffff|1<<20)
		r.l.Input(Frame{Data: f, Len: 65000}, r.now, r.send)
	}
}

func BenchmarkInputARP(b *testing.B) {
	r := quiet(b, nil)
	f := unhex(goldenARPRequest)
	for b.Loop() {
		r.l.Input(Frame{Data: f}, r.now, func([]byte) {})
	}
}

func BenchmarkInputDiscover(b *testing.B) {
	r := quiet(b, func(o *Options) { o.DHCP.On = true })
	f := unhex(goldenDiscover)
	for b.Loop() {
		r.l.Input(Frame{Data: f}, r.now, func([]byte) {})
	}
}

func BenchmarkLookup4(b *testing.B) {
	r := quiet(b, wide)
	addrs := crowd(r, 1000)
	i := 0
	for b.Loop() {
		if _, ok := r.l.Lookup(addrs[i%len(addrs)]); !ok {
			b.Fatal("not found")
		}
		i++
	}
}

func BenchmarkLookup6(b *testing.B) {
	r := quiet(b, wide)
	crowd(r, 1000)
	r.delivered(dataFrame(guestA, a6, far6))
	for b.Loop() {
		if _, ok := r.l.Lookup(a6); !ok {
			b.Fatal("not found")
		}
	}
}

// BenchmarkLookupParallel is what the stack's goroutines do.
func BenchmarkLookupParallel(b *testing.B) {
	r := quiet(b, wide)
	addrs := crowd(r, 1000)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := r.l.Lookup(addrs[i%len(addrs)]); !ok {
				b.Error("not found")
			}
		}
	})
}
