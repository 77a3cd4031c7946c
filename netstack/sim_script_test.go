package netstack_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// ending is how a player ends its connection.
type ending uint8

const (
	endHalf  ending = iota // FIN after its bytes, close after the other's FIN
	endLast                // FIN only after the other's
	endQuit                // close after so many bytes, whatever the other does
	endAbort               // RST after so many bytes
)

// part is what one end of a connection does.
type part struct {
	send, chunk int
	after       int // bytes it wants first
	restAt      int
	rest        time.Duration // pause after restAt bytes
	slow        time.Duration // reads nothing for so long
	end         ending
	at          int // bytes, both ways, until endQuit and endAbort
}

// answer is what the stack's handler says to an attempt.
type answer uint8

const (
	accept answer = iota
	refuse
	drop
)

// script is one connection.
type script struct {
	name     string
	flow     tuple
	start    time.Duration // after the last one of this flow, if there was any
	dial     time.Duration // how long the handler takes
	answer   answer
	vanish   time.Duration // after so long nothing passes any more; 0: never
	client   part
	server   part
	again    *script // from the same port
	streams  [2]stream
	played   *player   // the client
	accepted []*player // the server; empty if it never heard of the client
	followed bool      // again has begun
}

// over reports whether both ends are.
func (c *script) over() bool {
	if c.played == nil || !c.played.over() {
		return false
	}
	for _, p := range c.accepted {
		if !p.over() {
			return false
		}
	}
	return true
}

// peaceful reports whether nobody means any harm.
func (c *script) peaceful() bool {
	return c.answer == accept && c.vanish == 0 && c.client.end <= endLast && c.server.end <= endLast
}

// size is how much one side sends: often nothing or little, sometimes much.
func size(rnd *rand.Rand) int {
	switch rnd.IntN(6) {
	case 0:
		return 0
	case 1, 2:
		return 1 + rnd.IntN(3000)
	case 3, 4:
		return rnd.IntN(30_000)
	}
	return rnd.IntN(200_000)
}

func newPart(rnd *rand.Rand, calm bool) part {
	p := part{send: size(rnd), chunk: 1 + rnd.IntN(30_000)}
	if rnd.IntN(5) == 0 {
		p.restAt, p.rest = rnd.IntN(p.send+1), upTo(rnd, 100*time.Second)
	}
	if rnd.IntN(8) == 0 && calm {
		p.slow = upTo(rnd, 20*time.Second)
	}
	return p
}

// newScript invents the connection of a flow, and perhaps those that follow it. Only
// on a calm network does anybody let a window close: gVisor takes the window of an ACK
// that is overtaken for news, begins to probe a window of zero, and when it ends that
// it forgets that it had something to send again.
func newScript(rnd *rand.Rand, name string, t tuple, calm bool) *script {
	c := &script{
		name: name, flow: t, start: upTo(rnd, 5*time.Second),
		client: newPart(rnd, calm), server: newPart(rnd, calm),
		streams: [2]stream{{rnd.IntN(len(noise))}, {rnd.IntN(len(noise))}},
	}
	if rnd.IntN(2) == 0 {
		c.dial = upTo(rnd, 3*time.Second)
	}
	a, b := &c.client, &c.server
	if rnd.IntN(2) == 0 {
		a, b = b, a
	}
	if rnd.IntN(2) == 0 {
		a.after = rnd.IntN(b.send + 1)
	}
	total := a.send + b.send
	switch rnd.IntN(10) {
	case 0, 1, 2, 3:
		a.end = endLast
	case 4:
		a.end, a.at = endAbort, rnd.IntN(total+1)
	case 5:
		a.end, a.at = endQuit, rnd.IntN(total+1)
	case 6:
		a.end, a.at = endQuit, a.send // all is sent, and the other may still send
		a.after = 0
	}
	switch rnd.IntN(20) {
	case 0, 1:
		c.answer = refuse
	case 2:
		c.answer = drop
	case 3:
		c.vanish = upTo(rnd, 10*time.Second)
	}
	if c.vanish == 0 && rnd.IntN(4) == 0 {
		c.again = newScript(rnd, name+"+", t, calm)
		if rnd.IntN(2) == 0 {
			c.again.start = upTo(rnd, 10*time.Millisecond)
		}
	}
	return c
}

// newFlow is the i-th flow.
func newFlow(rnd *rand.Rand, i int) tuple {
	port := uint16(20_000 + i)
	if rnd.IntN(2) == 0 {
		return tuple{netip.AddrPortFrom(simClient6, port), netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 1+rnd.IntN(3))), 443)}
	}
	return tuple{netip.AddrPortFrom(simClient4, port), netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", 1+rnd.IntN(3))), 443)}
}

var (
	simClient4 = netip.MustParseAddr("198.18.0.7")
	simClient6 = netip.MustParseAddr("fd00:18::7")
)

// String says what came of a script.
func (c *script) String() string {
	s := fmt.Sprintf("%v answer %d dial %v vanish %v", c.flow, c.answer, c.dial, c.vanish)
	for _, p := range append([]*player{c.played}, c.accepted...) {
		if p != nil {
			s += fmt.Sprintf("\n\t%s: sent %d received %d, eof %v shut %v closed %v gave up %v error %v; part %+v",
				p.name, p.sent, p.received, p.eof, p.shut, p.closed, p.gaveUp, p.err, p.part)
		}
	}
	return s
}
