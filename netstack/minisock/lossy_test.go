package minisock

import (
	"encoding/binary"
	"testing"
)

// sackOpt is a timestamp option and SACK blocks.
func sackOpt(ts, ecr uint32, edges ...uint32) []byte {
	b := append(tsOpt(ts, ecr), 1, 1, 5, byte(2+4*len(edges)))
	for _, e := range edges {
		b = binary.BigEndian.AppendUint32(b, e)
	}
	return b
}

// TestSteps: when the client has told of something missing lately, the stack is shown its
// ACKs in steps of a segment; and that ends.
func TestSteps(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		c := newRig(t, nil).open(p).establish()
		const mss = 1360 // the client's 1400, less options
		sent, acked := uint32(0), uint32(0)
		send := func(at uint32, n int) Result {
			res, _ := c.out(p, seg{flags: ack, seq: stackISN + 1 + at, ack: c.nxt, wnd: 900, opts: tsOpt(stackTS+9, clientTS+1), data: n})
			c.verdict(res, Pass, None)
			sent = max(sent, at+uint32(n))
			return res
		}
		acks := func(more uint32) Result {
			acked += more
			res, _ := c.in(p, seg{flags: ack, seq: c.nxt, ack: c.isn + 1 + acked, wnd: 500, opts: tsOpt(clientTS+2, c.ts+9)})
			c.verdict(res, Pass, None)
			return res
		}
		plain := func(what string, res Result) {
			if res.Step != 0 {
				t.Errorf("%s: steps of %d", what, res.Step)
			}
		}
		sack := func(edges ...uint32) {
			for i := range edges {
				edges[i] += c.isn + 1
			}
			c.in(p, seg{flags: ack, seq: c.nxt, ack: c.isn + 1 + acked, wnd: 500, opts: sackOpt(clientTS+2, c.ts+9, edges...)})
		}
		send(0, 20*mss)
		plain("nothing is missing", acks(3*mss))
		if res := send(3*mss, mss); !res.Again || res.Acked != c.isn+1+3*mss {
			t.Errorf("%+v", res)
		}
		plain("what was sent again may not have been lost", acks(3*mss))
		sack(mss, 2*mss)
		plain("something came twice", acks(3*mss))
		sack(mss, 2*mss, 15*mss, 16*mss)
		for range 20 * lossyFor {
			send(sent, 5*mss)
			if res := acks(3 * mss); res.Step != mss || res.Fresh != 3*mss {
				plain("the first of those not lossy", res)
				plain("the second", acks(2*mss))
				return
			}
			plain("a segment", acks(mss))
			plain("less than a segment", acks(mss/2))
			plain("nothing new", acks(0))
			acks(mss / 2)
		}
		t.Error("lossy for ever")
	})
}
