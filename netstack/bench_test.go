package netstack_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/netstack"
)

// destination returns the i-th of many destinations.
func destination(v6 bool, i int) tuple {
	if v6 {
		t := tuple6(uint16(20000 + i%40000))
		b := t.dst.Addr().As16()
		binary.BigEndian.PutUint32(b[12:], uint32(i+1))
		t.dst = netip.AddrPortFrom(netip.AddrFrom16(b), 80)
		return t
	}
	t := tuple4(uint16(20000 + i%40000))
	b := [4]byte{198, 19}
	binary.BigEndian.PutUint16(b[2:], uint16(i+1))
	t.dst = netip.AddrPortFrom(netip.AddrFrom4(b), 80)
	return t
}

// BenchmarkDestinations is the price of a segment of one connection, and of a
// connection, while connections to n destinations stand. It must not grow with n:
// gVisor's promiscuous mode, used for IPv4, makes it grow a hundredfold.
func BenchmarkDestinations(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1, 100, 10_000} {
			name := fmt.Sprintf("ipv4/%d", n)
			if v6 {
				name = fmt.Sprintf("ipv6/%d", n)
			}
			b.Run(name, func(b *testing.B) { benchDestinations(b, v6, n) })
		}
	}
}

func benchDestinations(b *testing.B, v6 bool, n int) {
	a := newAcceptor()
	r := newRig(b, a.handler(), netstack.Options{})
	var seq, next uint32
	var first flow.Conn
	for i := range n {
		s, k := r.connect(destination(v6, i))
		c := <-a.conns
		if i == 0 {
			seq, next, first = s, k, c
		}
	}
	b.Run("segment", func(b *testing.B) {
		bell := newBell()
		first.SetNotifier(bell)
		for b.Loop() {
			r.send(segment{tuple: destination(v6, 0), flags: ack | psh, seq: seq, ack: next, payload: []byte("12345678")}.frame())
			seq += 8
			for got := int64(0); got < 8; {
				<-bell.c
				m, _ := first.ReadTo(io.Discard)
				got += m
			}
			for r.dev.Recv(0) != nil { // ACKs
				continue
			}
		}
	})
	b.Run("connection", func(b *testing.B) {
		i := n
		for b.Loop() {
			t := destination(v6, i)
			r.connect(t)
			(<-a.conns).Abort()
			i = n + (i-n+1)%20_000
		}
	})
}
