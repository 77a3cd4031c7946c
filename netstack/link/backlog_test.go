package link_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tungate/tungate/netstack/link"
	"github.com/tungate/tungate/tundev"
	"github.com/tungate/tungate/tundev/tuntest"
)

// write hands one packet with this payload to the endpoint.
func (r *rig) write(t *testing.T, payload []byte) {
	t.Helper()
	pkt := outbound(server4, client4, payload, 0)
	defer pkt.DecRef()
	var list stack.PacketBufferList
	list.PushBack(pkt)
	if n, err := r.ep.WritePackets(list); n != 1 || err != nil {
		t.Fatalf("WritePackets returned %d, %v", n, err)
	}
}

// TestOutboundFaults counts what the device does not take and loses nothing else.
func TestOutboundFaults(t *testing.T) {
	r := newRig(t, tuntest.Options{})
	for i, err := range []error{unix.EIO, tundev.ErrGone} {
		r.dev.FailWrites(err)
		r.write(t, []byte("x"))
		if got := r.ep.Stats().Drops[link.DropTxError]; got != uint64(i+1) {
			t.Errorf("%v: %d drops of tx_error, want %d", err, got, i+1)
		}
	}
	r.dev.FailWrites(nil)
	r.write(t, []byte("y"))
	if f := r.dev.Recv(within); len(f) == 0 || f[len(f)-1] != 'y' {
		t.Errorf("after the fault %d bytes came out", len(f))
	}
}

// TestBacklog: a device that takes no more loses nothing that fits the bound, in
// order, and more than that is counted.
func TestBacklog(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EAGAIN, unix.ENOBUFS} {
		r := newRig(t, tuntest.Options{})
		r.dev.FailWrites(errno)
		const bound = 256
		for i := range bound + 3 {
			r.write(t, []byte{byte(i), byte(i >> 8)})
		}
		s := r.ep.Stats()
		if q := s.Queues[0]; q.Waiting != bound || q.Tx.Waited != bound || s.Drops[link.DropTxFull] != 3 {
			t.Fatalf("%v: %d wait, %d waited, %d dropped; want %d, %d, 3", errno, q.Waiting, q.Tx.Waited, s.Drops[link.DropTxFull], bound, bound)
		}
		r.dev.FailWrites(nil)
		for i := range bound {
			f := r.dev.Recv(within)
			if len(f) < 2 || !bytes.Equal(f[len(f)-2:], []byte{byte(i), byte(i >> 8)}) {
				t.Fatalf("%v: frame %d came out as %x", errno, i, f)
			}
		}
		r.write(t, []byte("z"))
		if f := r.dev.Recv(within); len(f) == 0 || f[len(f)-1] != 'z' {
			t.Errorf("%v: afterwards %d bytes came out", errno, len(f))
		}
		if n := r.ep.Stats().Queues[0].Waiting; n > 1 {
			t.Errorf("%v: %d frames wait though the device takes them", errno, n)
		}
	}
}

// TestBacklogEnd: what waits does not keep Run from returning.
func TestBacklogEnd(t *testing.T) {
	r := newRig(t, tuntest.Options{})
	r.dev.FailWrites(unix.EAGAIN)
	r.write(t, []byte("x"))
	// newRig's cleanup closes the device and waits for Run; goleak does the rest.
}
