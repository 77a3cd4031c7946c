package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tungate/tungate/flow"
)

func TestOptionsValidate(t *testing.T) {
	web := netip.MustParseAddrPort("192.0.2.1:80")
	for _, tc := range []struct {
		name string
		o    Options
		bad  []string // how each fault begins; none: valid
	}{
		{"zero", Options{}, nil},
		{"direct", Options{Handler: "direct", Relay: "simple", Mark: 1, Interface: "eth0", Allow: Classes(), IdleTimeout: -1}, nil},
		{"echo", Options{Handler: "echo"}, nil},
		{"fixed", Options{Handler: "fixed", Target: web, Forward: map[netip.AddrPort]netip.AddrPort{web: web}}, nil},
		{"handler", Options{Handler: "socks"}, []string{`handler: "socks"`}},
		{"fixed without target", Options{Handler: "fixed"}, []string{"target: "}},
		{"fixed to port 0", Options{Handler: "fixed", Target: netip.AddrPortFrom(web.Addr(), 0)}, []string{"target: "}},
		{"fixed to a zone", Options{Handler: "fixed", Target: netip.MustParseAddrPort("[fe80::1%eth0]:80")}, nil},
		{"target without fixed", Options{Target: web}, []string{"target: only"}},
		{"target for echo", Options{Handler: "echo", Target: web}, []string{"target: only"}},
		{"relay", Options{Relay: "threads"}, []string{`relay: "threads"`}},
		{"interface", Options{Interface: "a-name-too-long-"}, []string{"interface: "}},
		{"class", Options{Allow: []Class{ClassSelf, "lan"}}, []string{`allow: "lan"`}},
		{"forward to nowhere", Options{Forward: map[netip.AddrPort]netip.AddrPort{web: {}}}, []string{"forward: "}},
		{"forward from nowhere", Options{Forward: map[netip.AddrPort]netip.AddrPort{{}: web}}, []string{"forward: "}},
		{
			"all at once",
			Options{
				Handler: "x", Interface: "a-name-too-long-", ConnectTimeout: -1, DrainTimeout: -1,
				KeepaliveIdle: maxKeepalive + 1, KeepaliveInterval: -1, KeepaliveCount: 128,
				UDP: UDPOptions{MaxSessions: -1, IdleTimeout: -1, DNSTimeout: -1},
			},
			[]string{"handler: ", "interface: ", "connect_timeout: ", "drain_timeout: ", "udp.idle_timeout: ", "udp.dns_timeout: ", "keepalive_idle: ", "keepalive_interval: ", "keepalive_count: ", "udp.max_sessions: "},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.o.Validate()
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(tc.bad) {
				t.Fatalf("%d faults, want %d: %v", len(got), len(tc.bad), err)
			}
			for i, want := range tc.bad {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("fault %q, want %q", got[i], want)
				}
			}
			if err == nil {
				return
			}
			if _, err := New(tc.o, nil); err == nil {
				t.Error("New takes what Validate refuses")
			}
		})
	}
}

// TestOptionsDefaults: a zero means what its comment says, a value stays.
func TestOptionsDefaults(t *testing.T) {
	o := Options{}.withDefaults()
	if o.Handler != "direct" || o.Relay != "reactor" || o.ConnectTimeout != 10*time.Second || o.IdleTimeout != 2*time.Hour || o.DrainTimeout != 5*time.Minute ||
		o.StallTimeout != 5*time.Minute || o.KeepaliveIdle != time.Minute || o.KeepaliveInterval != 15*time.Second || o.KeepaliveCount != 9 ||
		o.UDP != (UDPOptions{MaxSessions: 4096, IdleTimeout: time.Minute, DNSTimeout: 10 * time.Second}) {
		t.Errorf("defaults are %+v", o)
	}
	set := Options{Handler: "echo", ConnectTimeout: 1, IdleTimeout: -1, DrainTimeout: 2, UDP: UDPOptions{1, 2, 3}}
	if got := set.withDefaults(); got.Handler != set.Handler || got.ConnectTimeout != 1 || got.IdleTimeout != -1 || got.DrainTimeout != 2 || got.UDP != set.UDP {
		t.Errorf("what was set became %+v", got)
	}
}

// TestCountersHoldEveryReason: a reason past the array would panic in the data path.
func TestCountersHoldEveryReason(t *testing.T) {
	var c flowCounters
	for _, r := range flow.CloseReasons() {
		c.begin()
		c.end(r)
	}
	s := c.snapshot()
	for _, r := range flow.CloseReasons() {
		if s.Closed[r] != 1 {
			t.Errorf("%v is counted %d times", r, s.Closed[r])
		}
	}
	if s.Open != 0 || s.Opened != uint64(len(flow.CloseReasons())) {
		t.Errorf("open %d, opened %d", s.Open, s.Opened)
	}
}
