package tuntest

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/tungate/tungate/tundev"
)

// iface is what the device's interface was, from the beginning until now.
type iface struct {
	mu      sync.Mutex
	states  []tundev.State
	changed chan struct{} // closed at the next change
}

func (i *iface) init(s tundev.State) {
	i.states = []tundev.State{s}
	i.changed = make(chan struct{})
}

// change appends a state; one that is as the last is none.
func (i *iface) change(edit func(*tundev.State)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	last := i.states[len(i.states)-1]
	now := last
	if edit(&now); now.Equal(last) {
		return
	}
	i.states = append(i.states, now)
	close(i.changed)
	i.changed = make(chan struct{})
}

// since returns the states from the nth on, and what tells of more.
func (i *iface) since(n int) ([]tundev.State, chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.states[n:], i.changed
}

// State returns what the interface is.
func (d *Device) State() tundev.State {
	d.iface.mu.Lock()
	defer d.iface.mu.Unlock()
	return d.iface.states[len(d.iface.states)-1]
}

// SetUp sets the interface up or down. One that is down fails writes with EIO and
// loses what is sent to it.
func (d *Device) SetUp(up bool) { d.iface.change(func(s *tundev.State) { s.Up = up }) }

// SetMTU changes the interface's MTU, as ip link set mtu does. Only Watch tells.
func (d *Device) SetMTU(mtu tundev.MTU) { d.iface.change(func(s *tundev.State) { s.MTU = mtu }) }

// SetAddresses changes the interface's addresses, as ip addr does. Only Watch tells.
func (d *Device) SetAddresses(a ...netip.Prefix) {
	d.iface.change(func(s *tundev.State) { s.Addresses = slices.SortedFunc(slices.Values(a), netip.Prefix.Compare) })
}

// Watch is that of tundev.Device: fn gets the interface's state, first as it was
// made and then at each change, until ctx is done (nil) or the device was deleted
// (tundev.ErrGone).
func (d *Device) Watch(ctx context.Context, fn func(tundev.State)) error {
	for n := 0; ; {
		states, changed := d.iface.since(n)
		for _, s := range states {
			s.Addresses = slices.Clone(s.Addresses)
			fn(s)
		}
		n += len(states)
		select {
		case <-changed:
		case <-d.gone:
			if d.why == tundev.ErrGone { //nolint:errorlint // as Delete put it there
				return d.why
			}
			<-ctx.Done()
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
