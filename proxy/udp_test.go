package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// TestUDP passes datagrams of all sizes both ways, each as it was.
func TestUDP(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		go r.peer.echo()
		total := 0
		for i, n := range []int{1, 0, 512, 1472, 9000, 65507, 0, 2} {
			want := bytesOf(uint64(i), n)
			if !r.d.HandleDatagram(r.w, r.id, want) {
				t.Fatal("nobody is there")
			}
			got := await(t, "the answer", r.w.got)
			if got.id != r.id || got.from != r.id.Destination || got.rejected || !bytes.Equal(got.payload, want) {
				t.Fatalf("%d bytes were answered by %d to %v from %v, rejected %v", n, len(got.payload), got.id, got.from, got.rejected)
			}
			total += n
		}
		r.stop()
		rec := r.wantEnd(40000, flow.ReasonShutdown)
		if rec.Up != uint64(total) || rec.Down != uint64(total) || rec.Upstream != r.peer.at {
			t.Errorf("recorded %+v, want %d bytes each way", rec, total)
		}
		s := r.d.Stats().UDP
		if s.BytesUp != uint64(total) || s.BytesDown != uint64(total) || s.Opened != 1 || s.Open != 0 || s.Dials[DialOK] != 1 || s.Closed[flow.ReasonShutdown] != 1 {
			t.Errorf("counted %+v", s)
		}
		if r.send(r.id, "late") {
			t.Error("a datagram was taken after the end")
		}
	})
}

// TestUDPMapping: a flow keeps its upstream port, and has it alone.
func TestUDPMapping(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		one := r.exchange(r.flow(1), "a")
		two := r.exchange(r.flow(2), "b")
		if one == two {
			t.Errorf("two flows come from %v", one)
		}
		if again := r.exchange(r.flow(1), "c"); again != one {
			t.Errorf("a flow came from %v, then from %v", one, again)
		}
		// A stranger has nothing to say to a client.
		stranger := newPeer(t, id.Destination)
		if _, err := stranger.WriteToUDPAddrPort([]byte("spoofed"), one); err != nil {
			t.Fatal(err)
		}
		if _, err := r.peer.WriteToUDPAddrPort([]byte("answer"), one); err != nil {
			t.Fatal(err)
		}
		if got := await(t, "the answer", r.w.got); string(got.payload) != "answer" {
			t.Errorf("the client got %q", got.payload)
		}
	})
}

// TestUDPForward answers from where the client sent to, not from where that went.
func TestUDPForward(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		dns := netip.MustParseAddrPort("192.0.2.53:53")
		if id.Client.Addr().Is6() {
			dns = netip.MustParseAddrPort("[2001:db8::53]:53")
		}
		r := newUDPRig(t, e, id, Options{Forward: map[netip.AddrPort]netip.AddrPort{dns: {}}})
		go r.peer.echo()
		asked := r.id
		asked.Destination = dns
		if !r.send(asked, "query") {
			t.Fatal("nobody is there")
		}
		if got := await(t, "the answer", r.w.got); got.from != dns || string(got.payload) != "query" {
			t.Errorf("answered %q from %v", got.payload, got.from)
		}
	})
}

// TestUDPRefused tells the client that nobody is there, each time, and keeps the
// session for the server that comes up.
func TestUDPRefused(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		from := r.exchange(r.id, "while it was up")
		_ = r.peer.Close()
		for range 3 {
			r.send(r.id, "lost")
			if got := await(t, "the rejection", r.w.got); !got.rejected || got.id != r.id {
				t.Errorf("got %+v, want a rejection", got)
			}
		}
		r.peer = newPeer(t, r.peer.at)
		if again := r.exchange(r.id, "up again"); again != from {
			t.Errorf("the flow came from %v, then from %v", from, again)
		}
	})
}

// TestUDPRefusedAtSend: the error of an earlier datagram, met by the next one, costs
// that one nothing.
func TestUDPRefusedAtSend(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		r.exchange(r.id, "before")
		// While the loop is busy it cannot meet the error first.
		release := r.hold()
		_ = r.peer.Close()
		r.send(r.id, "lost")
		r.peer = newPeer(t, r.peer.at)
		r.exchange(r.id, "arrives")
		release()
		if got := await(t, "the rejection", r.w.got); !got.rejected {
			t.Errorf("got %+v, want a rejection", got)
		}
	})
}

// TestUDPErrors: what ICMP says of one datagram ends no session.
func TestUDPErrors(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		0: false, unix.EAGAIN: false, unix.EBADF: false, unix.ECONNABORTED: false, unix.ENOMEM: false,
		unix.ECONNREFUSED: true, unix.EMSGSIZE: true, unix.EHOSTUNREACH: true, unix.ENETUNREACH: true, unix.ENOPROTOOPT: true, unix.EACCES: true,
	} {
		if got := ofEarlier(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}

// TestUDPDropped counts what the socket does not take.
func TestUDPDropped(t *testing.T) {
	r := newUDPRig(t, onLoop, flows(flow.UDP)["ipv4"], Options{})
	if !r.d.HandleDatagram(r.w, r.id, make([]byte, 65508)) { // one more than IPv4 holds
		t.Error("an oversize datagram is called unserved")
	}
	if s := r.d.Stats(); s.UDPDropped != 1 || s.UDP.BytesUp != 0 {
		t.Errorf("counted %+v", s)
	}
	r.exchange(r.id, "fits")
}

// TestUDPDenied refuses by policy, our own sockets' datagrams, and without files.
func TestUDPDenied(t *testing.T) {
	forUDP(t, func(t *testing.T, e engine, id flow.ID) {
		r := newUDPRig(t, e, id, Options{})
		denied := func(id flow.ID, want error) {
			t.Helper()
			before := r.d.Stats().UDP.Dials[DialDenied]
			if r.send(id, "x") {
				t.Errorf("%v was served", id)
			}
			if rec := await(t, "the record", r.records); rec.Result != DialDenied || !errors.Is(rec.Err, want) || rec.ID != id {
				t.Errorf("recorded %+v, want %v", rec, want)
			}
			if n := r.d.Stats().UDP.Dials[DialDenied] - before; n != 1 {
				t.Errorf("%d denials counted", n)
			}
		}
		for _, to := range []string{"169.254.169.254:80", "224.0.0.251:5353", "[fe80::1]:5353", "[ff02::fb]:5353", "[64:ff9b::7f00:1]:53"} {
			other := r.id
			other.Destination = netip.MustParseAddrPort(to)
			denied(other, errDenied)
		}
		// Sent by the gateway itself and routed back into the device: each
		// round would make another session, for ever.
		looped := r.flow(7)
		looped.Client = r.exchange(r.flow(7), "out")
		denied(looped, errLoop)
		r.stop()
		if n := len(r.d.udp.own.m); n != 0 {
			t.Errorf("%d addresses are still called our own", n)
		}
	})
}
