package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

// TestRelayModel plays random scripts on two connections at once, one relayed by
// goroutines and one by the loop, and after every step wants both to come to the
// same: what waits unread where, who was told of which end, how it was recorded.
func TestRelayModel(t *testing.T) {
	const scripts, steps = 300, 14
	seed := newSeed(t)
	ids := flows(flow.TCP)
	rigs := map[string][]*rig{}
	for family, id := range ids {
		for _, e := range engines {
			rigs[family] = append(rigs[family], newRig(t, e, id, Options{}))
		}
	}
	ends := map[string]int{}
	for i := range uint64(scripts) {
		rng := rand.New(rand.NewPCG(seed, i))
		family := []string{"ipv4", "ipv6"}[rng.IntN(2)]
		m := newModel(t, rigs[family], rng)
		for range steps {
			if !m.step() || t.Failed() {
				break
			}
		}
		if t.Failed() {
			t.Fatalf("script %d, %s: %s", i, family, strings.Join(m.script, "; "))
		}
		ends[m.finish()]++
	}
	t.Logf("ends: %v", ends)
}

// model is one script, played on a connection of each relay.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	both   []*joined
	script []string

	sentUp, sentDown, gotUp, gotDown int // bytes so far
	clientFIN, upFIN                 bool
	abrupt                           bool // a side has reset or closed
	fatal                            bool // which ends the relay
}

func newModel(t *testing.T, rigs []*rig, rng *rand.Rand) *model {
	t.Helper()
	m := &model{t: t, rng: rng}
	window := []int{1 + rng.IntN(3000), defaultWindow}[rng.IntN(2)]
	for _, r := range rigs {
		r.t = t
		j := r.join()
		j.end.setWindow(window)
		m.both = append(m.both, j)
	}
	m.script = []string{fmt.Sprint("window ", window)}
	return m
}

// stream is what a direction carries.
func stream(from, n int, up bool) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((from + i) * 7)
		if up {
			b[i] ^= 0xff
		}
	}
	return b
}

// step does one thing on both connections and compares; false after the last.
func (m *model) step() bool {
	n := 1 + m.rng.IntN(4000)
	const goesOn, ends = false, true
	switch op := m.rng.IntN(26); {
	case op < 6 && !m.clientFIN:
		m.sentUp += n
		m.do(fmt.Sprint("client sends ", n), goesOn, func(j *joined) { m.write(j.client, m.sentUp-n, n, true) })
	case op < 12 && !m.upFIN:
		m.sentDown += n
		m.do(fmt.Sprint("upstream sends ", n), goesOn, func(j *joined) { m.write(j.up, m.sentDown-n, n, false) })
	case op < 16:
		n = min(n, m.both[0].end.unread())
		m.gotDown += n
		m.do(fmt.Sprint("client reads ", n), goesOn, func(j *joined) { m.read(j.client, m.gotDown-n, n, false) })
	case op < 20:
		n = min(n, unreadBy(m.t, m.both[0].up))
		m.gotUp += n
		m.do(fmt.Sprint("upstream reads ", n), goesOn, func(j *joined) { m.read(j.up, m.gotUp-n, n, true) })
	case op == 20 && !m.clientFIN:
		m.clientFIN = true
		m.do("FIN of the client", goesOn, func(j *joined) { _ = j.client.CloseWrite() })
	case op == 21 && !m.upFIN:
		m.upFIN = true
		m.do("FIN of the upstream", goesOn, func(j *joined) { _ = j.up.CloseWrite() })
	case op == 22:
		window := 1 + m.rng.IntN(5000)
		m.do(fmt.Sprint("window ", window), goesOn, func(j *joined) { j.end.setWindow(window) })
	case op == 23 && m.rng.IntN(2) == 0:
		m.fatal = true
		m.do("RST of the client", ends, func(j *joined) { j.client.Abort() })
	case op == 24 && m.rng.IntN(2) == 0:
		// What the client has not taken comes first.
		m.fatal = !m.upFIN && m.both[0].end.unread() == m.sentDown-m.gotDown
		m.do("RST of the upstream", ends, func(j *joined) { reset(j.up) })
	case op == 25 && m.rng.IntN(2) == 0:
		m.fatal = m.both[0].end.unread() > 0
		m.do("the client closes", ends, func(j *joined) { _ = j.client.Close() })
	}
	return !m.abrupt && m.both[0].record == nil
}

// do plays a step on both and waits until they agree.
func (m *model) do(what string, last bool, f func(j *joined)) {
	m.t.Helper()
	m.script = append(m.script, what)
	m.abrupt = m.abrupt || last
	for _, j := range m.both {
		f(j)
	}
	var views [2]string
	defer func() {
		if views[0] != views[1] {
			m.t.Errorf("after %q:\nsimple %s\nloop   %s\n%s", what, views[0], views[1], strings.Join(m.script, "; "))
		}
	}()
	eventually(m.t, "both come to the same", func() bool {
		for i, j := range m.both {
			views[i] = j.view()
		}
		return views[0] == views[1] && m.settled(m.both[0]) && m.settled(m.both[1])
	})
}

// settled reports whether all has arrived that can.
func (m *model) settled(j *joined) bool {
	if m.abrupt {
		return j.record != nil || !m.fatal
	}
	j.end.lock.Lock()
	unread, window, fin := len(j.end.received), j.end.window, j.end.fin
	j.end.lock.Unlock()
	return unread >= min(window, m.sentDown-m.gotDown) &&
		fin == (m.upFIN && unread == m.sentDown-m.gotDown) &&
		unreadBy(m.t, j.up) == m.sentUp-m.gotUp &&
		(j.record != nil) == (fin && m.clientFIN)
}

func (m *model) write(to io.Writer, from, n int, up bool) {
	m.t.Helper()
	if _, err := to.Write(stream(from, n, up)); err != nil {
		m.t.Errorf("write: %v", err)
	}
}

func (m *model) read(c io.Reader, from, n int, up bool) {
	m.t.Helper()
	got, want := make([]byte, n), stream(from, n, up)
	if k, err := io.ReadFull(c, got); err != nil || firstDifference(got, want) != n {
		m.t.Errorf("read %d of %d, %v, differs at %d", k, n, err, firstDifference(got, want))
	}
}

// finish lets both sides read to the end, close, and compares a last time.
func (m *model) finish() string {
	m.t.Helper()
	for _, j := range m.both {
		_ = j.client.CloseWrite()
		_ = j.up.CloseWrite()
		j.end.setWindow(defaultWindow)
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{j.client})
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{j.up})
		j.wait()
	}
	a, b := m.both[0].wait().Reason, m.both[1].wait().Reason
	if a != b {
		m.t.Errorf("ended by %v with goroutines, %v on the loop: %s", a, b, strings.Join(m.script, "; "))
	}
	return a.String()
}

// view is what can be seen of a connection from outside.
func (j *joined) view() string {
	if j.record == nil {
		select {
		case rec := <-j.records:
			j.record = &rec
		default:
		}
	}
	var b strings.Builder
	j.end.lock.Lock()
	if j.end.closed {
		b.WriteString("client closed")
	} else {
		fmt.Fprintf(&b, "client has %d, FIN %v, %v", len(j.end.received), j.end.fin, j.end.broken)
	}
	j.end.lock.Unlock()
	fmt.Fprintf(&b, "; upstream %s", socketView(j.up))
	if j.record != nil {
		fmt.Fprintf(&b, "; ended by %v, %d up, %d down", j.record.Reason, j.record.Up, j.record.Down)
	}
	return b.String()
}

// socketView is what the kernel knows of a socket.
func socketView(c *net.TCPConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return "closed"
	}
	var s string
	err = raw.Control(func(fd uintptr) {
		unread, _ := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			s = err.Error()
			return
		}
		s = fmt.Sprintf("has %d in state %d", unread, info.State)
	})
	if err != nil {
		return "closed"
	}
	return s
}
