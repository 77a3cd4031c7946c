package tundev_test

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tungate/tungate/tundev"
)

// TestProbe finds every feature of a kernel that has them, and leaves nothing.
func TestProbe(t *testing.T) {
	ns := namespace(t)
	for _, o := range []tundev.Options{{}, {Kind: tundev.TAP, Queues: 3, MTU: 1400}, {Name: "mine", NetNS: ns.Name}, {NetNS: "tungate-none", CreateNetNS: true}} {
		err := ns.Do(func() error {
			var r tundev.Report
			noLeak(t, func() { r = tundev.Probe(o) })
			if r.Kernel == "" || !r.OK || len(r.Features) != 12 || !strings.HasSuffix(r.Summary(), "with every offload") {
				t.Errorf("%q: %+v", r.Summary(), r)
			}
			for _, f := range r.Features {
				if !f.OK || f.Detail == "" {
					t.Errorf("%s: %v, %q", f.Name, f.OK, f.Detail)
				}
			}
			if c := r.Configured; c == nil || c.Error != "" || c.Kind != o.Kind.String() || o.Queues != 0 && c.Queues != o.Queues || o.MTU != 0 && c.MTU != o.MTU || c.Offloads != allFeatures.String() {
				t.Errorf("a gateway gets %+v", c)
			}
			l, err := netlink.LinkList()
			if err == nil && len(l) != 1 {
				t.Errorf("%d interfaces after the probe, want lo alone", len(l))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestProbeInterface looks at devices that exist, and leaves one alone that another
// program serves.
func TestProbeInterface(t *testing.T) {
	ns := namespace(t)
	if err := ns.IP("tuntap add tap7 mode tap multi_queue", "link set tap7 mtu 1300", "tuntap add tun7 mode tun"); err != nil {
		t.Fatal(err)
	}
	probe := func(name string) (r tundev.Report) {
		_ = ns.Do(func() error { noLeak(t, func() { r = tundev.ProbeInterface(name) }); return nil })
		return r
	}
	r := probe("tap7")
	if i := r.Interface; !r.OK || i == nil || i.Kind != "tap" || i.MTU != 1300 || i.Up || !i.MultiQueue || !i.Persistent || i.Queues != 0 {
		t.Errorf("%q: %+v", r.Summary(), r.Interface)
	}
	if c := r.Configured; c == nil || c.Kind != "tap" || c.MTU != 1300 {
		t.Errorf("a gateway gets %+v", c)
	}
	d := create(t, ns, tundev.Options{Name: "tap7", Kind: tundev.TAP, Attach: true, Queues: 2})
	for name, want := range map[string]string{"tap7": "served by another program", "none": "no interface none", "lo": "no TUN or TAP"} {
		if r := probe(name); r.OK || !strings.Contains(r.Summary(), want) {
			t.Errorf("%s: %q, want a sentence with %q", name, r.Summary(), want)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	create(t, ns, tundev.Options{Name: "tun7", Attach: true})
	if r := probe("tun7"); r.OK || !strings.Contains(r.Summary(), "in use") {
		t.Errorf("%q", r.Summary())
	}
}

// TestProbeConfig names what keeps a gateway from starting.
func TestProbeConfig(t *testing.T) {
	ns := namespace(t)
	if err := ns.IP("tuntap add tap7 mode tap", "link add br0 type bridge"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    tundev.Options
		want string
	}{
		{tundev.Options{Name: "br0"}, "exists already"},
		{tundev.Options{Name: "tap7", Attach: true}, "set device.kind to tap"},
		{tundev.Options{Name: "tap7", Kind: tundev.TAP, Attach: true, Queues: 2}, "without multi_queue"},
		{tundev.Options{MTU: 70000}, "mtu: 70000"},
		{tundev.Options{NetNS: "tungate-none"}, "is not there"},
	} {
		_ = ns.Do(func() error {
			if r := tundev.Probe(c.o); r.OK || !strings.Contains(r.Summary(), c.want) {
				t.Errorf("%+v: %q, want a sentence with %q", c.o, r.Summary(), c.want)
			}
			return nil
		})
	}
	_ = ns.Do(func() error {
		if r := tundev.Probe(tundev.Options{FDs: []int{3}}); !r.OK || !strings.Contains(r.Features[0].Detail, "when the gateway starts") {
			t.Errorf("%+v", r)
		}
		return nil
	})
}
