// Package tuntest has devices in memory with the contract of package tundev, for
// tests that need no kernel, no root and no time.
//
// [Pair] joins two devices back to back: a frame written to one is read from the
// other, superframes and partial checksums untouched, as if a TUN's two sides were
// two programs. A test puts the stack under test on one and a client's stack on
// the other. [New] gives a single device whose far side is the test itself: Send
// and Recv.
//
// A device may have several queues. A frame for it waits on the one that its flow
// was last written to, and before that on one that a hash of the flow chooses,
// which is what a TUN does (tun.c, tun_automq_select_queue).
//
// Faults and events come on command: [Device.FailWrites], [Device.FailNext],
// [Device.RefuseSuperframes], [Device.SetUp], [Device.SetMTU],
// [Device.SetAddresses], [Device.Delete], and [Options.FullEvery]. There is no
// descriptor, so [tundev.Queue.FD] is -1 and nobody is told when a full queue has
// room again: try again when something was read from the other side.
package tuntest

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tungate/tungate/tundev"
)

// HdrLen is the length of the virtio_net_hdr each frame begins with.
const HdrLen = 10

// defaultDepth is how many frames wait in a queue: TUN's default txqueuelen.
const defaultDepth = 500

// Options describes a device. The zero value is a TUN with one queue, all offloads
// but USO, and an MTU of 1500.
type Options struct {
	MTU   tundev.MTU
	Depth int // frames that wait unread on a queue; one more is EAGAIN
	// NoChecksum and NoTSO take an offload away.
	NoChecksum, NoTSO bool
	// USO makes UDP superframes one of the device's features.
	USO bool
	// Kind of the device; frames of a TAP begin with an Ethernet header after
	// the virtio_net_hdr.
	Kind tundev.Kind
	// Queues is how many queues the device has; 0 is one.
	Queues int
	// FullEvery makes each write of that number, 25 say, find the queue full:
	// EAGAIN, and a loss for whoever does not try again. 0 is never.
	FullEvery int
	// LoseEvery makes each write of that number vanish, as on a wire. 0 is none.
	LoseEvery int
}

// Device is one end. Its methods may be called from any goroutine. It is also its
// own first queue.
type Device struct {
	*queue // the first
	opts   Options
	queues []*queue
	peer   *Device     // where written frames go; nil: to out
	out    chan []byte // of a device without a peer
	steer  steering    // of the frames that are read here

	gone     chan struct{} // closed by Close or Delete
	goneOnce sync.Once
	why      error // valid once gone is closed
	written  atomic.Int64

	faults faults
	iface  iface
}

// New returns a device whose far side is the caller.
func New(o Options) *Device {
	if o.MTU == 0 {
		o.MTU = tundev.DefaultMTU
	}
	if o.Depth == 0 {
		o.Depth = defaultDepth
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	d := &Device{opts: o, out: make(chan []byte, o.Depth), gone: make(chan struct{})}
	for i := range o.Queues {
		d.queues = append(d.queues, &queue{d: d, index: i, in: make(chan []byte, o.Depth)})
	}
	d.queue = d.queues[0]
	d.steer.init(o)
	d.iface.init(tundev.State{Up: true, MTU: o.MTU})
	return d
}

// Pair returns two devices, each the far side of the other.
func Pair(o Options) (*Device, *Device) {
	a, b := New(o), New(o)
	a.peer, b.peer = b, a
	return a, b
}

// Queues returns the device's queues.
func (d *Device) Queues() []tundev.Queue {
	all := make([]tundev.Queue, len(d.queues))
	for i, q := range d.queues {
		all[i] = q
	}
	return all
}

// Kind returns what the device carries.
func (d *Device) Kind() tundev.Kind { return d.opts.Kind }

// MTU returns the device's MTU as it was made; see SetMTU.
func (d *Device) MTU() tundev.MTU { return d.opts.MTU }

// HardwareAddr returns the address of a TAP's far side, nil for a TUN.
func (d *Device) HardwareAddr() net.HardwareAddr {
	if d.opts.Kind == tundev.TAP {
		return net.HardwareAddr{2, 0, 0, 0, 0, 2}
	}
	return nil
}

// Features returns the offloads the device has.
func (d *Device) Features() tundev.Features {
	checksum := !d.opts.NoChecksum
	tso := checksum && !d.opts.NoTSO
	return tundev.Features{VnetHdr: true, Checksum: checksum, TSO4: tso, TSO6: tso, ECN: tso, USO: checksum && d.opts.USO}
}

// Send lets the device's reader find a frame, virtio_net_hdr first; it keeps a
// copy. False says that the queue is full, or the link down, and the frame lost.
func (d *Device) Send(frame []byte) bool { return d.SendOn(d.steer.choose(frame), frame) }

// SendOn is Send to the reader of the queue with that index.
func (d *Device) SendOn(queue int, frame []byte) bool {
	if !d.State().Up {
		return false
	}
	return d.queues[queue].put(slices.Clone(frame))
}

// Recv returns the next frame written to the device, nil if none came in time or
// the device is gone. It does not wait if within is 0.
func (d *Device) Recv(within time.Duration) []byte {
	select {
	case f := <-d.out:
		return f
	default:
	}
	if within <= 0 {
		return nil
	}
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case f := <-d.out:
		return f
	case <-timeout.C:
	case <-d.gone:
	}
	return nil
}

// Written returns how many frames were written to the device so far.
func (d *Device) Written() int { return int(d.written.Load()) }

// Close ends the device as its owner does: net.ErrClosed for everybody.
func (d *Device) Close() error {
	d.end(net.ErrClosed)
	return nil
}

// Delete ends the device as ip link del does: tundev.ErrGone for everybody.
func (d *Device) Delete() { d.end(tundev.ErrGone) }

func (d *Device) end(why error) {
	d.goneOnce.Do(func() {
		d.why = why
		close(d.gone)
	})
}

// ended returns why the device is gone, nil if it is not.
func (d *Device) ended() error {
	select {
	case <-d.gone:
		return d.why
	default:
		return nil
	}
}
