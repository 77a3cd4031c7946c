package tundev

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// State is what an interface is at one moment.
type State struct {
	Up  bool // administratively up
	MTU MTU
	// Addresses of the interface, each with its prefix, in order.
	Addresses []netip.Prefix
}

// Equal reports whether nothing has changed between the two.
func (s State) Equal(o State) bool {
	return s.Up == o.Up && s.MTU == o.MTU && slices.Equal(s.Addresses, o.Addresses)
}

const (
	// watchBuffer is how many messages may wait: a flap of every interface of a
	// busy host at once.
	watchBuffer = 64
	// watchPause is between attempts to hear of the interface again.
	watchPause = 100 * time.Millisecond
)

// Watch calls fn with the interface's state, first as it is and then at each
// change, until ctx is done (nil) or the interface is deleted (ErrGone). It follows
// an interface that is renamed or moved to another namespace. One that this program
// cannot see, which came by its descriptors alone, cannot be watched: fn is called
// once. fn runs on the caller's goroutine and owns its argument.
func (d *Device) Watch(ctx context.Context, fn func(State)) error {
	w := watch{d: d, fn: fn}
	if d.index == 0 {
		w.tell(State{Up: true, MTU: d.mtu})
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		err := w.follow(ctx)
		switch {
		case errors.Is(err, net.ErrClosed):
			<-ctx.Done() // who closed the device ends this as well
		case err != nil:
			return err
		}
		// It moved away, or the kernel had more messages than the socket holds.
		pause := time.NewTimer(watchPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
	return nil
}

// watch is one Watch.
type watch struct {
	d     *Device
	fn    func(State)
	known bool
	last  State
}

// tell passes a state on if it is a new one.
func (w *watch) tell(now State) {
	if w.known && now.Equal(w.last) {
		return
	}
	w.known, w.last = true, now
	now.Addresses = slices.Clone(now.Addresses)
	w.fn(now)
}

// follow tells of the interface as it is, and then of each message about it; nil
// says that it has to be looked for again.
func (w *watch) follow(ctx context.Context) error {
	x, err := factsOf(w.d.files[0])
	if errors.Is(err, unix.EBADFD) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	ns, err := w.d.elsewhere()
	if err != nil {
		return err
	}
	if ns.IsOpen() {
		defer func() { _ = ns.Close() }()
	}
	m, err := subscribe(ns)
	if err != nil {
		<-ctx.Done() // it moved to where this program may not look
		return nil   // and that is no reason to end
	}
	defer m.end()
	// Messages from before this look are told of once more and change nothing.
	index, now, err := lookAtState(ns, x.name)
	if err != nil {
		return nil // it moved or went just now
	}
	w.tell(now)
	return w.listen(ctx, m, index)
}

// listen handles messages until one says that the interface is not here any more.
func (w *watch) listen(ctx context.Context, m *messages, index int) error {
	for {
		now := w.last
		select {
		case u, ok := <-m.links:
			if !ok {
				return nil
			}
			if int(u.Index) != index {
				continue
			}
			if u.Header.Type == unix.RTM_DELLINK {
				return nil
			}
			now.Up = u.IfInfomsg.Flags&unix.IFF_UP != 0
			now.MTU = MTU(u.Attrs().MTU) //nolint:gosec // the kernel's bound is MaxMTU
		case u, ok := <-m.addresses:
			if !ok {
				return nil
			}
			if u.LinkIndex != index {
				continue
			}
			now.Addresses = withAddress(now.Addresses, u.LinkAddress, u.NewAddr)
		case <-ctx.Done():
			return nil
		}
		w.tell(now)
	}
}

// messages are the kernel's, of links and of addresses.
type messages struct {
	links     chan netlink.LinkUpdate
	addresses chan netlink.AddrUpdate
	done      chan struct{}
}

// subscribe asks for the messages of a namespace, the caller's if ns is not open.
func subscribe(ns netns.NsHandle) (*messages, error) {
	m := &messages{
		links: make(chan netlink.LinkUpdate, watchBuffer), addresses: make(chan netlink.AddrUpdate, watchBuffer),
		done: make(chan struct{}),
	}
	at := &ns
	if !ns.IsOpen() {
		at = nil
	}
	if err := netlink.LinkSubscribeWithOptions(m.links, m.done, netlink.LinkSubscribeOptions{Namespace: at}); err != nil {
		close(m.done)
		return nil, err
	}
	if err := netlink.AddrSubscribeWithOptions(m.addresses, m.done, netlink.AddrSubscribeOptions{Namespace: at}); err != nil {
		close(m.addresses)
		m.end()
		return nil, err
	}
	return m, nil
}

// end returns when the library's goroutines have ended.
func (m *messages) end() {
	close(m.done)
	for range m.links {
	}
	for range m.addresses {
	}
}

// lookAtState asks a namespace about the interface called name.
func lookAtState(ns netns.NsHandle, name string) (index int, s State, err error) {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, s, err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return 0, s, err
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return 0, s, err
	}
	a := link.Attrs()
	s = State{Up: a.RawFlags&unix.IFF_UP != 0, MTU: MTU(a.MTU)} //nolint:gosec // the kernel's bound is MaxMTU
	for _, addr := range addrs {
		s.Addresses = withAddress(s.Addresses, *addr.IPNet, true)
	}
	return a.Index, s, nil
}

// withAddress returns list with an address more or less, in order.
func withAddress(list []netip.Prefix, a net.IPNet, there bool) []netip.Prefix {
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return list
	}
	ones, _ := a.Mask.Size()
	p := netip.PrefixFrom(ip.Unmap(), ones)
	list = slices.DeleteFunc(slices.Clone(list), func(q netip.Prefix) bool { return q == p })
	if there {
		list = append(list, p)
		slices.SortFunc(list, netip.Prefix.Compare)
	}
	return list
}
