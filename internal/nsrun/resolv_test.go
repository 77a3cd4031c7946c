package nsrun

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestParseResolv(t *testing.T) {
	for _, c := range []struct {
		name, file string
		servers    []netip.Addr
		other      []string
	}{
		{"empty", "", addrs("127.0.0.1"), nil},
		{"no servers", "search a b\n", addrs("127.0.0.1"), []string{"search a b"}},
		{"stub", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", addrs("127.0.0.53"), []string{"options edns0 trust-ad", "search ."}},
		{"both families", "nameserver 192.0.2.1\nnameserver 2001:db8::1\n", addrs("192.0.2.1", "2001:db8::1"), nil},
		{"zone", "nameserver fe80::1%eth0\n", addrs("fe80::1%eth0"), nil},
		{"mapped", "nameserver ::ffff:192.0.2.1\n", addrs("192.0.2.1"), nil},
		{"this host", "nameserver 0.0.0.0\nnameserver ::\n", addrs("127.0.0.1", "::1"), nil},
		{"at most three", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), nil},
		{"comments", "#nameserver 192.0.2.1\n; nameserver 192.0.2.2\nnameserver 192.0.2.3#x\nnameserver 192.0.2.4 ; y\n", addrs("192.0.2.3", "192.0.2.4"), nil},
		{"tabs, no newline", "nameserver\t192.0.2.1\t", addrs("192.0.2.1"), nil},
		{"crlf", "nameserver 192.0.2.1\r\n", addrs("192.0.2.1"), nil},
		{"not at the start", " nameserver 192.0.2.1\n", addrs("127.0.0.1"), nil},
		{"no address", "nameserver example.net\nnameservers 192.0.2.1\n", addrs("127.0.0.1"), nil},
		{"kept", "domain d\nsortlist 192.0.2.0\nlookup file bind\n", addrs("127.0.0.1"), []string{"domain d", "sortlist 192.0.2.0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := parseResolv([]byte(c.file))
			if !slices.Equal(r.servers, c.servers) || !slices.Equal(r.other, c.other) {
				t.Errorf("got %v %q, want %v %q", r.servers, r.other, c.servers, c.other)
			}
		})
	}
}

func TestReadResolvMissing(t *testing.T) {
	r, err := readResolv(filepath.Join(t.TempDir(), "none"))
	if err != nil || !slices.Equal(r.servers, addrs("127.0.0.1")) {
		t.Errorf("got %v, %v", r.servers, err)
	}
}

func TestVirtualise(t *testing.T) {
	r := resolver{servers: addrs("10.0.0.1", "fe80::1%eth0", "10.0.0.3")}
	for _, c := range []struct {
		own  string
		want []string
	}{
		{"198.18.0.1/15", []string{"198.18.0.2:53", "198.18.0.3:53", "198.18.0.4:53"}},
		{"198.18.0.3/15", []string{"198.18.0.2:53", "198.18.0.4:53", "198.18.0.5:53"}},
		{"fd00:18::1/64", []string{"[fd00:18::2]:53", "[fd00:18::3]:53", "[fd00:18::4]:53"}},
	} {
		file, forward := r.virtualise([]netip.Prefix{netip.MustParsePrefix(c.own)})
		for i, want := range c.want {
			v := netip.MustParseAddrPort(want)
			if forward[v] != netip.AddrPortFrom(r.servers[i], 53) {
				t.Errorf("%s: %s leads to %v", c.own, want, forward[v])
			}
			if !strings.Contains(file, "nameserver "+v.Addr().String()+"\n") {
				t.Errorf("%s: no %s in\n%s", c.own, want, file)
			}
		}
	}
}

// FuzzParseResolv holds the parser to what the command and the gateway rely on.
func FuzzParseResolv(f *testing.F) {
	f.Add([]byte(hostResolv))
	f.Add([]byte("nameserver 1::%a#b\nsearch\x00x\n"))
	f.Add([]byte("search 0\x18\r\r\n"))
	own := []netip.Prefix{netip.MustParsePrefix("198.18.0.2/15")}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseResolv(b)
		if n := len(r.servers); n < 1 || n > maxNameservers {
			t.Fatalf("%d servers", n)
		}
		file, forward := r.virtualise(own)
		again := parseResolv([]byte(file))
		if len(forward) != len(r.servers) || len(again.servers) != len(r.servers) {
			t.Fatalf("%v became %v", r.servers, again.servers)
		}
		for i, v := range again.servers { // what the command reads leads to what the host had
			if forward[netip.AddrPortFrom(v, dnsPort)].Addr() != r.servers[i] || v == own[0].Addr() {
				t.Fatalf("%v leads to %v", v, forward)
			}
		}
		if !slices.Equal(again.other, r.other) {
			t.Fatalf("%q became %q", r.other, again.other)
		}
	})
}
