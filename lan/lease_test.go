package lan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// poolRig is a pool of 198.18.0.10 to 198.18.0.19 whose addresses in use are listed.
func poolRig(change func(*DHCPOptions)) (*pool, map[netip.Addr]station) {
	o := DHCPOptions{First: ip("198.18.0.10"), Last: ip("198.18.0.19"), LeaseTime: time.Hour, MaxLeases: 100, MaxPerStation: 3}
	if change != nil {
		change(&o)
	}
	used := map[netip.Addr]station{}
	p := &pool{}
	p.init(&o, network("198.18.0.1/24"), []netip.Addr{gateway4, gateway6}, func(a netip.Addr, by station) bool {
		s, ok := used[a]
		return ok && s != by
	})
	return p, used
}

func at(last byte) uint32 { return num(netip.AddrFrom4([4]byte{198, 18, 0, last})) }

func aClient(n int) client { return client{station: 0x020000000000 + station(n)} }

// TestOffer has a row for each rule of RFC 2131, section 4.3.1, about which address
// is offered.
func TestOffer(t *testing.T) {
	c, other := aClient(1), aClient(2)
	mac := c.station.mac()
	bind := func(p *pool, c client, a uint32) {
		if g := p.take(c, a, false, 0); g != granted {
			t.Fatalf("take of %v: %d", addrOf(a), g)
		}
	}
	for _, r := range []struct {
		name    string
		options func(*DHCPOptions)
		before  func(p *pool, used map[netip.Addr]station)
		wish    uint32
		want    uint32 // 0 is any that is free
	}{
		{name: "reserved", wish: at(12), want: at(50), options: func(o *DHCPOptions) { o.Reserved = map[MAC]netip.Addr{mac: ip("198.18.0.50")} }},
		{name: "what it has", wish: at(13), want: at(12), before: func(p *pool, _ map[netip.Addr]station) { bind(p, c, at(12)) }},
		{name: "what it was offered", wish: at(13), want: at(12), before: func(p *pool, _ map[netip.Addr]station) { p.offer(c, at(12), 0) }},
		{name: "what it had", wish: at(13), want: at(12), before: func(p *pool, _ map[netip.Addr]station) {
			bind(p, c, at(12))
			p.release(c, at(12), 0)
		}},
		{name: "what it had, but is in use now", wish: at(13), want: at(13), before: func(p *pool, used map[netip.Addr]station) {
			bind(p, c, at(12))
			used[ip("198.18.0.12")] = other.station
		}},
		{name: "what it wishes", wish: at(12), want: at(12)},
		{name: "what it uses already", wish: at(12), want: at(12), before: func(_ *pool, used map[netip.Addr]station) { used[ip("198.18.0.12")] = c.station }},
		{name: "wish of another's", wish: at(12), before: func(p *pool, _ map[netip.Addr]station) { bind(p, other, at(12)) }},
		{name: "wish in use", wish: at(12), before: func(_ *pool, used map[netip.Addr]station) { used[ip("198.18.0.12")] = other.station }},
		{name: "wish reserved for another", wish: at(12), options: func(o *DHCPOptions) { o.Reserved = map[MAC]netip.Addr{other.station.mac(): ip("198.18.0.12")} }},
		{name: "wish outside the pool", wish: at(30)},
		{name: "wish of the gateway's", wish: at(1)},
		{name: "wish of another network", wish: num(far4)},
		{name: "no wish"},
		{name: "the last free one", want: at(15), before: func(p *pool, used map[netip.Addr]station) {
			for i := byte(10); i < 20; i++ {
				if i != 15 {
					used[addrOf(at(i))] = other.station
				}
			}
		}},
		{name: "what another had", want: at(14), before: func(p *pool, _ map[netip.Addr]station) {
			for i := byte(10); i < 20; i++ {
				bind(p, aClient(100+int(i)), at(i))
			}
			p.release(aClient(114), at(14), 0)
			p.release(aClient(112), at(12), 0)
		}},
		{name: "what was offered to another", want: at(16), before: func(p *pool, _ map[netip.Addr]station) {
			for i := byte(10); i < 20; i++ {
				if i == 16 || i == 11 {
					continue
				}
				bind(p, aClient(100+int(i)), at(i))
			}
			p.offer(aClient(116), at(16), 0)
			p.offer(aClient(111), at(11), 0)
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			p, used := poolRig(r.options)
			if r.before != nil {
				r.before(p, used)
			}
			a, ok := p.offer(c, r.wish, 0)
			if !ok || r.want != 0 && a != r.want || r.want == 0 && (a < at(10) || a > at(19) || a == r.wish) {
				t.Fatalf("offered %v, %v; want %v", addrOf(a), ok, addrOf(r.want))
			}
			if again, ok := p.offer(c, 0, 0); !ok || again != a {
				t.Errorf("offered %v, then %v", addrOf(a), addrOf(again))
			}
			if g := p.take(c, a, true, 0); g != granted {
				t.Errorf("took the offer: %d", g)
			}
		})
	}
}

// TestPoolExhausted offers nothing when there is nothing, and no lease is broken.
func TestPoolExhausted(t *testing.T) {
	p, _ := poolRig(nil)
	for i := range 10 {
		a, ok := p.offer(aClient(i), 0, 0)
		if !ok || p.take(aClient(i), a, true, 0) != granted {
			t.Fatalf("client %d got nothing", i)
		}
	}
	if a, ok := p.offer(aClient(10), 0, 0); ok {
		t.Errorf("offered %v of a full pool", addrOf(a))
	}
	if a, ok := p.offer(aClient(10), 0, time.Hour); !ok {
		t.Errorf("offered nothing when all ran out")
	} else if p.byAddr[a].client != aClient(10) || len(p.byAddr) != 10 {
		t.Errorf("offered %v of another", addrOf(a))
	}
}

// TestPoolBounds bounds leases in all and for a station; idle ones count for
// nobody.
func TestPoolBounds(t *testing.T) {
	p, _ := poolRig(func(o *DHCPOptions) { o.MaxLeases = 5 })
	same := func(i int) client { return client{aClient(1).station, fmt.Sprint(i)} }
	for i := range 3 {
		if g := p.take(same(i), at(byte(10+i)), false, 0); g != granted {
			t.Fatalf("client %d of a station: %d", i, g)
		}
	}
	if _, ok := p.offer(same(3), 0, 0); ok {
		t.Error("a fourth of a station was offered an address")
	}
	if g := p.take(same(3), at(15), false, 0); g != refused {
		t.Errorf("a fourth of a station took an address: %d", g)
	}
	if g := p.take(same(2), at(15), false, 0); g != granted || len(p.byAddr) != 3 {
		t.Errorf("the third changed its address: %d, %d leases", g, len(p.byAddr))
	}
	p.release(same(0), at(10), 0)
	if _, ok := p.offer(same(3), 0, 0); !ok {
		t.Error("a fourth was offered nothing though one had left")
	}
	if _, ok := p.offer(same(0), 0, 0); ok {
		t.Error("one who had left was offered an address that is one too many")
	}
	for i := range 20 {
		p.offer(aClient(100+i), 0, 0)
		if n := len(p.byAddr); n > 5 {
			t.Fatalf("%d leases", n)
		}
	}
	if p.bound.len != 2 {
		t.Errorf("%d leases in force, want 2", p.bound.len)
	}
}

// TestTake has a row for each line of RFC 2131's table 4 and section 4.3.2.
func TestTake(t *testing.T) {
	c, other := aClient(1), aClient(2)
	for _, r := range []struct {
		name      string
		before    func(p *pool, used map[netip.Addr]station)
		addr      uint32
		selecting bool
		want      grant
	}{
		{"its offer", func(p *pool, _ map[netip.Addr]station) { p.offer(c, at(12), 0) }, at(12), true, granted},
		{"another than its offer, free", func(p *pool, _ map[netip.Addr]station) { p.offer(c, at(12), 0) }, at(13), true, granted},
		{"another's offer", func(p *pool, _ map[netip.Addr]station) { p.offer(other, at(12), 0) }, at(12), true, refused},
		{"another's lease", func(p *pool, _ map[netip.Addr]station) { p.take(other, at(12), false, 0) }, at(12), false, refused},
		{"its lease", func(p *pool, _ map[netip.Addr]station) { p.take(c, at(12), false, 0) }, at(12), false, granted},
		{"what it released", func(p *pool, _ map[netip.Addr]station) { p.take(c, at(12), false, 0); p.release(c, at(12), 0) }, at(12), false, granted},
		{"forgotten, free", nil, at(12), false, granted},
		{"forgotten, in use", func(_ *pool, used map[netip.Addr]station) { used[addrOf(at(12))] = other.station }, at(12), false, refused},
		{"what it declined", func(p *pool, _ map[netip.Addr]station) { p.offer(c, at(12), 0); p.decline(c, at(12), 0) }, at(12), false, refused},
		{"of another network", nil, num(far4), false, refused},
		{"of nobody's pool", nil, at(30), false, unknown},
		{"of nobody's pool, selecting", nil, at(30), true, refused},
		{"the gateway's", nil, at(1), false, refused},
		{"the broadcast address", nil, at(255), false, refused},
	} {
		t.Run(r.name, func(t *testing.T) {
			p, used := poolRig(nil)
			if r.before != nil {
				r.before(p, used)
			}
			if got := p.take(c, r.addr, r.selecting, 0); got != r.want {
				t.Errorf("%d, want %d", got, r.want)
			}
		})
	}
}

// TestReservation is one station's, whichever of its clients asks, and nobody
// else's.
func TestReservation(t *testing.T) {
	c, other := aClient(1), aClient(2)
	second := client{c.station, "boot loader"}
	p, _ := poolRig(func(o *DHCPOptions) { o.Reserved = map[MAC]netip.Addr{c.station.mac(): ip("198.18.0.12")} })
	if p.holder(ip("198.18.0.12")) != c.station {
		t.Error("not held before it is leased")
	}
	for _, x := range []client{c, second, c} {
		if a, ok := p.offer(x, at(15), 0); !ok || a != at(12) {
			t.Errorf("offered %v", addrOf(a))
		}
		if p.take(x, at(12), true, 0) != granted || p.take(x, at(15), false, 0) != refused {
			t.Error("took another")
		}
	}
	if p.take(other, at(12), false, 0) != refused {
		t.Error("another took it")
	}
	if len(p.byAddr) != 1 || len(p.byClient) != 1 || p.held[c.station] != 1 {
		t.Errorf("%d leases, %d clients", len(p.byAddr), len(p.byClient))
	}
}

// TestStable gives a client the same address after a restart that forgot it.
func TestStable(t *testing.T) {
	wide := func(o *DHCPOptions) { o.First, o.Last = ip("198.18.0.2"), ip("198.18.0.254") }
	p, _ := poolRig(wide)
	q, _ := poolRig(wide)
	same := 0
	const clients = 60
	for i := range clients {
		p.offer(aClient(i), 0, 0)
		q.offer(aClient(clients-1-i), 0, 0)
	}
	for i := range clients {
		if p.byClient[aClient(i)].addr == q.byClient[aClient(i)].addr {
			same++
		}
	}
	if same < clients*3/4 {
		t.Errorf("%d of %d clients keep their address in another order of arrival", same, clients)
	}
}

// TestPoolRandom runs random scripts and checks after each step what must hold
// always.
func TestPoolRandom(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		p, used := poolRig(func(o *DHCPOptions) {
			o.MaxLeases = 4 + r.IntN(10)
			o.Reserved = map[MAC]netip.Addr{aClient(0).station.mac(): ip("198.18.0.12"), aClient(1).station.mac(): ip("198.18.0.50")}
		})
		now := time.Duration(0)
		for range 3000 {
			now += time.Duration(r.Int64N(int64(3 * time.Minute)))
			c := aClient(r.IntN(12))
			c.id = [...]string{"", "x", "y", "z", "w"}[r.IntN(5)]
			a := at(byte(8 + r.IntN(14)))
			switch r.IntN(8) {
			case 0, 1:
				if got, ok := p.offer(c, a, now); ok && p.byClient[c].addr != got {
					t.Fatalf("seed %d: offered %v, remembers %v", seed, addrOf(got), addrOf(p.byClient[c].addr))
				}
			case 2, 3, 4:
				before := p.byAddr[a]
				if p.take(c, a, r.IntN(2) == 0, now) == granted {
					if before != nil && before.state == leaseBound && before.client.station != c.station && before.until > now {
						t.Fatalf("seed %d: %v was taken from %v", seed, addrOf(a), before.client)
					}
					if l := p.byAddr[a]; l.client != c || l.state != leaseBound || l.until != now+time.Hour {
						t.Fatalf("seed %d: granted %v but %+v", seed, addrOf(a), l)
					}
				}
			case 5:
				p.release(c, a, now)
			case 6:
				p.decline(c, a, now)
			case 7:
				if used[addrOf(a)] != 0 {
					delete(used, addrOf(a))
				} else {
					used[addrOf(a)] = aClient(r.IntN(12)).station
				}
			}
			checkPool(t, p, now)
		}
	}
}

func checkPool(t testing.TB, p *pool, now time.Duration) {
	t.Helper()
	held := map[station]int{}
	for a, l := range p.byAddr {
		if l.addr != a || !p.has(a) {
			t.Fatalf("%v is no address of the pool: %+v", addrOf(a), l)
		}
		if s := p.reservedFor[a]; s != 0 && s != l.client.station {
			t.Fatalf("%v is reserved for another: %+v", addrOf(a), l)
		}
		if l.state != leaseDeclined && p.byClient[l.client] != l {
			t.Fatalf("%v has two: %+v", l.client, l)
		}
		if l.state != leaseIdle {
			held[l.client.station]++
		}
	}
	n := 0
	for s := leaseOffered; s <= leaseDeclined; s++ {
		in, _ := p.listOf(s)
		last := time.Duration(0)
		for x := in.root.next; x != &in.root; x = x.next {
			if x.of.state != s || p.byAddr[x.of.addr] != x.of || x.of.until < last {
				t.Fatalf("list %d holds %+v", s, x.of)
			}
			last = x.of.until
			n++
		}
	}
	if n != len(p.byAddr) || n > p.max || len(p.byClient) > n || len(held) != len(p.held) {
		t.Fatalf("%d in lists, %d by address, %d by client, %d of %d stations", n, len(p.byAddr), len(p.byClient), len(p.held), len(held))
	}
	for s, k := range held {
		if p.held[s] != k || k > p.each+1 { // a reservation is beside the share
			t.Fatalf("%v has %d, counted %d", s.mac(), k, p.held[s])
		}
	}
}
