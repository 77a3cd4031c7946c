package proxy

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestPolicyClasses: what is denied by default, by which class, and what is not.
func TestPolicyClasses(t *testing.T) {
	for class, addrs := range map[Class][]string{
		"": {
			"192.0.2.1", "198.51.100.7", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "1.0.0.0",
			"126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "223.255.255.255", "100.100.100.199",
			"2001:db8::1", "fd00:18::1", "2000::1", "fe00::1", "fec0::1", "fd00:ec2::253", "2003::7f00:1", "2001:1::1",
			"64:ff9b:2::1", "65:ff9b::7f00:1",
		},
		ClassLoopback: {"127.0.0.1", "127.0.0.0", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::"},
		ClassLinkLocal: {
			"169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255", "fe80::1", "febf:ffff::1",
			"100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
		},
		ClassMulticast: {"224.0.0.0", "224.0.0.251", "239.255.255.255", "255.255.255.255", "ff02::1", "ff00::", "ffff::1"},
		ClassEmbedded: {
			"::ffff:192.0.2.1", "::192.0.2.1", "::2", "::ffff:0:192.0.2.1", "64:ff9b::192.0.2.1", "64:ff9b:1:2:3:4:192.0.2.1",
			"2002:c000:201::1", "2001:0:1234::1", "2001:db8::5efe:192.0.2.1", "fd00::200:5efe:192.0.2.1",
		},
	} {
		for _, a := range addrs {
			if got := newPolicy(nil).deniedClass(netip.MustParseAddr(a)); got != class {
				t.Errorf("%s is denied by class %q, want %q", a, got, class)
			}
		}
	}
	if got := newPolicy(Classes()).deniedClass(netip.Addr{}); got != "" {
		t.Errorf("no address is denied by %q with all classes open", got)
	}
}

// TestPolicyAllow opens one class at a time, and with it nothing of another.
func TestPolicyAllow(t *testing.T) {
	of := map[Class]string{
		ClassLoopback: "127.0.0.1", ClassLinkLocal: "169.254.169.254", ClassMulticast: "224.0.0.1",
		ClassEmbedded: "64:ff9b::192.0.2.1",
	}
	for open := range of {
		p := newPolicy([]Class{open})
		for class, a := range of {
			want := class
			if class == open {
				want = ""
			}
			if got := p.deniedClass(netip.MustParseAddr(a)); got != want {
				t.Errorf("with %s open, %s is denied by %q, want %q", open, a, got, want)
			}
		}
	}
}

// TestPolicyEmbedded: an IPv4 address in an IPv6 form opens no more than it does
// itself, even where the forms are allowed.
func TestPolicyEmbedded(t *testing.T) {
	p := newPolicy([]Class{ClassEmbedded})
	for v4, class := range map[string]Class{
		"127.0.0.1": ClassLoopback, "0.0.0.7": ClassLoopback, "169.254.169.254": ClassLinkLocal,
		"224.0.0.1": ClassMulticast, "255.255.255.255": ClassMulticast, "192.0.2.1": "",
	} {
		a := netip.MustParseAddr(v4)
		for form, v6 := range formsOf(a) {
			if got, ok := embeddedV4(v6); !ok || got != a {
				t.Errorf("%s: %v carries %v, %v; want %v", form, v6, got, ok, a)
			}
			if got := p.deniedClass(v6); got != class {
				t.Errorf("%s: %v is denied by %q, want %q", form, v6, got, class)
			}
			if got := newPolicy([]Class{class}).deniedClass(v6); got != ClassEmbedded {
				t.Errorf("%s: %v is denied by %q with %q alone open", form, v6, got, class)
			}
		}
	}
	open := newPolicy([]Class{ClassEmbedded, ClassLoopback})
	if got := open.deniedClass(netip.MustParseAddr("::ffff:127.0.0.1")); got != "" {
		t.Errorf("with both classes open, it is denied by %q", got)
	}
	// A form inside a denied range.
	if got := p.deniedClass(netip.MustParseAddr("fe80::5efe:192.0.2.1")); got != ClassLinkLocal {
		t.Errorf("ISATAP on the link is denied by %q, want %q", got, ClassLinkLocal)
	}
}

// formsOf writes a in every IPv6 form that carries an IPv4 address.
func formsOf(a netip.Addr) map[string]netip.Addr {
	v4 := a.As4()
	at := func(prefix string, i int, invert byte) netip.Addr {
		b := netip.MustParseAddr(prefix).As16()
		for k, x := range v4 {
			b[i+k] = x ^ invert
		}
		return netip.AddrFrom16(b)
	}
	return map[string]netip.Addr{
		"mapped":      at("::ffff:0:0", 12, 0),
		"compatible":  at("::", 12, 0),
		"translated":  at("::ffff:0:0:0", 12, 0),
		"NAT64":       at("64:ff9b::", 12, 0),
		"local NAT64": at("64:ff9b:1:7::", 12, 0),
		"6to4":        at("2002::1", 2, 0),
		"Teredo":      at("2001:0:4136:e378:8000:63bf::", 12, 0xff),
		"ISATAP":      at("2001:db8::5efe:0:0", 12, 0),
		"ISATAP, u":   at("2001:db8::200:5efe:0:0", 12, 0),
	}
}

// TestPolicySelf denies the host's own addresses, whatever they are here, and
// leaves loopback to its own class.
func TestPolicySelf(t *testing.T) {
	own := netip.MustParseAddr("192.0.2.77")
	later := netip.MustParseAddr("2001:db8::77")
	addrs := []netip.Addr{own, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::77")}
	now := time.Now()
	newSelf := func(allow ...Class) *policy {
		p := newPolicy(allow)
		p.self.list = func() ([]netip.Addr, error) { return addrs, nil }
		p.self.now = func() time.Time { return now }
		return p
	}
	for _, tc := range []struct {
		addr  string
		allow []Class
		want  Class
	}{
		{"192.0.2.77", nil, ClassSelf},
		{"192.0.2.78", nil, ""},
		{"::ffff:192.0.2.77", []Class{ClassEmbedded}, ClassSelf},
		{"192.0.2.77", []Class{ClassSelf}, ""},
		{"127.0.0.1", []Class{ClassLoopback}, ""},
		{"127.0.0.1", []Class{ClassSelf}, ClassLoopback},
		{"fe80::77", []Class{ClassLinkLocal}, ClassSelf},
		{"fe80::78", []Class{ClassLinkLocal}, ""},
	} {
		if got := newSelf(tc.allow...).deniedClass(netip.MustParseAddr(tc.addr)); got != tc.want {
			t.Errorf("%s with %v open is denied by %q, want %q", tc.addr, tc.allow, got, tc.want)
		}
	}
	p := newSelf()
	if p.deniedClass(later) != "" {
		t.Error("an address that is nobody's is denied")
	}
	addrs = append(addrs, later)
	now = now.Add(selfAge)
	if p.deniedClass(later) != "" {
		t.Error("the list is read again before it is old")
	}
	now = now.Add(1)
	if p.deniedClass(later) != ClassSelf {
		t.Error("an address that came up is still not denied")
	}
	p.self.list = func() ([]netip.Addr, error) { return nil, errDenied }
	now = now.Add(selfAge + 1)
	if p.deniedClass(later) != ClassSelf {
		t.Error("a list that cannot be read lets everything through")
	}
}

// TestPolicyHost compares with what the kernel says of this host.
func TestPolicyHost(t *testing.T) {
	addrs, err := hostAddresses()
	if err != nil || !slices.Contains(addrs, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("the host has %v, %v", addrs, err)
	}
	for _, a := range addrs {
		if newPolicy(nil).deniedClass(a) == "" {
			t.Errorf("the host's own %v may be dialled", a)
		}
	}
}

func TestClassText(t *testing.T) {
	for _, c := range Classes() {
		var got Class
		if err := got.UnmarshalText([]byte(c)); err != nil || got != c {
			t.Errorf("%q is read as %q, %v", c, got, err)
		}
	}
	var c Class
	if err := c.UnmarshalText([]byte("localhost")); err == nil || c != "" {
		t.Errorf("read %q, %v", c, err)
	}
}

// TestOwn: the gateway's own addresses on a TAP are the host's to a client.
func TestOwn(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd00:18::1")}
	for _, a := range own {
		if got := newPolicy(nil, own...).deniedClass(a); got != ClassSelf {
			t.Errorf("%v is of class %q", a, got)
		}
		if got := newPolicy([]Class{ClassSelf}, own...).deniedClass(a); got != "" {
			t.Errorf("%v is denied though class self is open: %q", a, got)
		}
	}
	if got := newPolicy(nil, own...).deniedClass(netip.MustParseAddr("198.18.0.2")); got != "" {
		t.Errorf("a neighbor is of class %q", got)
	}
}
