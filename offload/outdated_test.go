package offload

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// ackFrame acknowledges 5000, at the timestamp 0x01020304 if it has one.
func ackFrame(v6, stamps bool, edits ...func([]byte)) []byte {
	o := superOpts{v6: v6, flags: TCPAck, seq: 1000}
	if stamps {
		o.options = 3
	}
	_, b := makeSuper(o, nil)
	begin := []func([]byte){number(8, 5000)}
	if stamps {
		begin = append(begin, number(20, 0x0101080a), number(24, 0x01020304))
	}
	return sealed(b, append(begin, edits...)...).b
}

// number sets 32 bits of the TCP header.
func number(i int, x uint32) func([]byte) {
	return func(b []byte) {
		at := 20
		if b[0]>>4 == 6 {
			at = 40
		}
		binary.BigEndian.PutUint32(b[at+i:], x)
	}
}

// TestOutdated: which acknowledgment says all that the one before it does.
func TestOutdated(t *testing.T) {
	more := number(8, 6000)
	for _, c := range []struct {
		name   string
		stamps bool
		first  []func([]byte)
		next   []func([]byte)
		want   bool
	}{
		{"more", false, nil, []func([]byte){more}, true},
		{"more, past 2^32", false, []func([]byte){number(8, 0xffffff00)}, []func([]byte){number(8, 100)}, true},
		{"more, another window", false, nil, []func([]byte){more, tcp(14, 1)}, true},
		{"more, same timestamp", true, nil, []func([]byte){more}, true},
		{"more, later timestamp", true, nil, []func([]byte){more, number(24, 0x01020305)}, true},
		{"more, earlier timestamp", true, nil, []func([]byte){more, number(24, 0x01020303)}, false},
		{"more, other options", true, nil, []func([]byte){more, number(20, 0x0101050a)}, false},
		{"options before it", true, []func([]byte){number(20, 0x0101050a)}, []func([]byte){more}, false},
		{"the same", false, nil, nil, false},
		{"less", false, nil, []func([]byte){number(8, 4000)}, false},
		{"more, another sequence number", false, nil, []func([]byte){more, number(4, 1001)}, false},
		{"more, another source port", false, nil, []func([]byte){more, tcp(1, 0xee)}, false},
		{"more, another destination port", false, nil, []func([]byte){more, tcp(3, 0xee)}, false},
		{"more, another traffic class", false, nil, []func([]byte){more, ip(1, 0x10)}, false},
		{"more, ECN-Echo", false, nil, []func([]byte){more, tcp(13, TCPAck|TCPEce)}, false},
		{"ECN-Echo before it", false, []func([]byte){tcp(13, TCPAck|TCPEce)}, []func([]byte){more}, false},
		{"more, FIN", false, nil, []func([]byte){more, tcp(13, TCPAck|TCPFin)}, false},
		{"FIN before it", false, []func([]byte){tcp(13, TCPAck|TCPFin)}, []func([]byte){more}, false},
		{"SYN-ACK before it", false, []func([]byte){tcp(13, TCPAck|TCPSyn)}, []func([]byte){more}, false},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/v6=%v", c.name, v6), func(t *testing.T) {
				a, b := ackFrame(v6, c.stamps, c.first...), ackFrame(v6, c.stamps, c.next...)
				var p, q Packet
				for i, v := range []Verdict{Parse(&p, a, len(a)), Parse(&q, b, len(b))} {
					if v != OK {
						t.Fatalf("frame %d: %v", i, v)
					}
				}
				if got := Outdated(&p, &q, a, b); got != c.want {
					t.Errorf("Outdated is %v, want %v", got, c.want)
				}
			})
		}
	}
}

// TestOutdatedData: what carries anything is never outdated, nor outdates anything.
func TestOutdatedData(t *testing.T) {
	_, data := makeSuper(superOpts{flags: TCPAck, seq: 1000}, []byte("x"))
	number(8, 4000)(data)
	a, b := sealed(data).b, ackFrame(false, false)
	var p, q Packet
	Parse(&p, a, len(a))
	Parse(&q, b, len(b))
	if Outdated(&p, &q, a, b) {
		t.Error("a segment with data was outdated by an acknowledgment")
	}
	number(8, 6000)(a)
	if Outdated(&q, &p, b, a) {
		t.Error("an acknowledgment was outdated by a segment with data")
	}
}
