package tundev_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
	"github.com/tungate/tungate/tundev"
)

// quiet is a namespace whose interfaces get no address by themselves.
func quiet(t *testing.T) *testutil.Namespace {
	t.Helper()
	ns := namespace(t)
	if err := ns.Sysctl("ipv6/conf/default/addr_gen_mode", "1"); err != nil {
		t.Fatal(err)
	}
	return ns
}

// watchStates follows d until the test ends.
func watchStates(t *testing.T, d *tundev.Device) (states chan tundev.State, ended chan error) {
	t.Helper()
	states, ended = make(chan tundev.State, 16), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- d.Watch(ctx, func(s tundev.State) { states <- s })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return states, ended
}

// expect waits a second, as an operator may, for the state that is next.
func expect(t *testing.T, step string, states chan tundev.State, want tundev.State) {
	t.Helper()
	select {
	case got := <-states:
		if !got.Equal(want) {
			t.Errorf("%q: %+v, want %+v", step, got, want)
		}
	case <-time.After(time.Second):
		t.Fatalf("%q: not told within a second", step)
	}
}

// TestWatch follows the link: addresses, down, up, another MTU, another name,
// deleted; of a device that was made, in another namespace or this, attached to, or
// came by its descriptor.
func TestWatch(t *testing.T) {
	ns := quiet(t)
	for name, open := range map[string]func() (*tundev.Device, error){
		"made elsewhere": func() (*tundev.Device, error) {
			return tundev.Create(tundev.Options{Name: "dev0", NetNS: ns.Name})
		},
		"tap": func() (*tundev.Device, error) {
			return tundev.Create(tundev.Options{Name: "dev0", NetNS: ns.Path(), Kind: tundev.TAP})
		},
		"attached": func() (*tundev.Device, error) {
			if err := ns.IP("tuntap add dev0 mode tun multi_queue", "link set dev0 up"); err != nil {
				return nil, err
			}
			return tundev.Create(tundev.Options{Name: "dev0", NetNS: ns.Name, Attach: true})
		},
		"by descriptor": func() (*tundev.Device, error) {
			fd := openQueue(t, ns, "dev0", tunFlags)
			if err := ns.IP("link set dev0 up"); err != nil {
				return nil, err
			}
			return tundev.Create(tundev.Options{FDs: []int{fd}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			states, ended := watchStates(t, d)
			four, six := netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("fd00:18::1/64")
			both := []netip.Prefix{four, six}
			for _, s := range []struct {
				do   string
				want tundev.State
			}{
				{"", tundev.State{Up: true, MTU: 1500}},
				{"addr add 198.18.0.1/15 dev dev0", tundev.State{Up: true, MTU: 1500, Addresses: both[:1]}},
				{"addr add fd00:18::1/64 dev dev0 nodad", tundev.State{Up: true, MTU: 1500, Addresses: both}},
				{"link set dev0 mtu 1400", tundev.State{Up: true, MTU: 1400, Addresses: both}},
				{"addr del 198.18.0.1/15 dev dev0", tundev.State{Up: true, MTU: 1400, Addresses: both[1:]}},
				{"addr del fd00:18::1/64 dev dev0", tundev.State{Up: true, MTU: 1400}},
				{"link set dev0 down", tundev.State{MTU: 1400}},
				{"link set dev0 name dev1", tundev.State{}},
				{"link set dev1 up", tundev.State{Up: true, MTU: 1400}},
			} {
				if s.do != "" {
					if err := ns.IP(s.do); err != nil {
						t.Fatal(err)
					}
				}
				if s.want.MTU != 0 {
					expect(t, s.do, states, s.want)
				}
			}
			if err := ns.IP("link del dev1"); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, tundev.ErrGone) {
					t.Errorf("Watch ended with %v, want ErrGone", err)
				}
			case <-time.After(time.Second):
				t.Error("not told that the device is deleted")
			}
		})
	}
}

// TestWatchMoved: a device that goes to another namespace goes on.
func TestWatchMoved(t *testing.T) {
	from, to := quiet(t), quiet(t)
	d, err := tundev.Create(tundev.Options{Name: "tun0", NetNS: from.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	states, ended := watchStates(t, d)
	expect(t, "", states, tundev.State{Up: true, MTU: 1500})
	if err := from.IP(fmt.Sprintf("link set tun0 netns %s", to.Name)); err != nil {
		t.Fatal(err)
	}
	for s := (tundev.State{Up: true}); s.Up; { // it arrives down
		select {
		case s = <-states:
		case <-time.After(time.Second):
			t.Fatal("not told that it is down")
		}
	}
	if err := to.IP("link set tun0 mtu 1300"); err != nil {
		t.Fatal(err)
	}
	expect(t, "mtu", states, tundev.State{MTU: 1300})
	if err := to.IP("link del tun0"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, tundev.ErrGone) {
		t.Errorf("ended with %v", err)
	}
}

// TestWatchStorm: messages about other interfaces, more than fit, hide nothing.
func TestWatchStorm(t *testing.T) {
	ns := quiet(t)
	d, err := tundev.Create(tundev.Options{Name: "tun0", NetNS: ns.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	held := make(chan struct{})
	mtus := make(chan tundev.MTU, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Watch(ctx, func(s tundev.State) { mtus <- s.MTU; <-held })
	}()
	if got := <-mtus; got != 1500 {
		t.Errorf("MTU %d", got)
	}
	var storm []string
	for i := range 400 {
		storm = append(storm, fmt.Sprintf("link set lo mtu %d", 60000+i))
	}
	if err := ns.IP(append(storm, "link set tun0 mtu 1400")...); err != nil {
		t.Fatal(err)
	}
	close(held)
	for deadline := time.After(within); ; {
		select {
		case got := <-mtus:
			if got == 1400 {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				return
			}
		case <-deadline:
			t.Fatal("the change was lost in the storm")
		}
	}
}
