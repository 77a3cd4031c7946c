package minisock

import (
	"fmt"
	"strings"
	"testing"
)

// matrix says what each state does with each kind of segment: the cause of a drop, or
// the verdict, and behind an arrow the flags of what is sent: S syn, F fin, R rst,
// . ack. Rows are the states that prepare knows.
const matrix = `
no flow
  SYN again    none > S.
  newer SYN    none > S.
  SYN-ACK      unknown_syn_ack
  exact RST    unknown_rst
  RST          unknown_rst
  stray RST    unknown_rst
  ACK          unknown_reset > R
  data         unknown_reset > R
  FIN          unknown_reset > R
  keepalive    unknown_reset > R
  bad ACK      unknown_reset > R
  old TS       unknown_reset > R
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

no flow, cookie sent
  SYN again    cookie_sent > S.
  newer SYN    cookie_sent > S.
  SYN-ACK      unknown_syn_ack
  exact RST    unknown_rst
  RST          unknown_rst
  stray RST    unknown_rst
  ACK          unknown_reset > R
  data         unknown_reset > R
  FIN          unknown_reset > R
  keepalive    unknown_reset > R
  bad ACK      unknown_reset > R
  old TS       unknown_reset > R
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

dialing
  SYN again    syn_duplicate
  newer SYN    syn_duplicate
  SYN-ACK      unknown_syn_ack
  exact RST    stray_rst
  RST          stray_rst
  stray RST    stray_rst
  ACK          handshake_bad_ack
  data         handshake_bad_ack
  FIN          handshake_bad_ack
  keepalive    handshake_bad_ack
  bad ACK      handshake_bad_ack
  old TS       handshake_bad_ack
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

syn_received
  SYN again    syn_duplicate > S.
  newer SYN    syn_challenged > .
  SYN-ACK      syn_challenged > .
  exact RST    half_open_reset
  RST          stray_rst
  stray RST    stray_rst
  ACK          create
  data         create
  FIN          create
  keepalive    handshake_window > .
  bad ACK      unknown_reset > R
  old TS       handshake_window > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

creating
  SYN again    challenged_syn
  newer SYN    challenged_syn
  SYN-ACK      challenged_syn
  exact RST    hold
  RST          stray_rst
  stray RST    stray_rst
  ACK          hold
  data         hold
  FIN          hold
  keepalive    hold
  bad ACK      challenged_ack > .
  old TS       paws > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

established
  SYN again    challenged_syn > .
  newer SYN    challenged_syn > .
  SYN-ACK      challenged_syn > .
  exact RST    pass
  RST          challenged_rst > .
  stray RST    stray_rst
  ACK          pass
  data         pass
  FIN          pass
  keepalive    pass
  bad ACK      challenged_ack > .
  old TS       paws > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

orphan in fin_wait_1
  SYN again    challenged_syn > .
  newer SYN    challenged_syn > .
  SYN-ACK      challenged_syn > .
  exact RST    reset_in
  RST          challenged_rst > .
  stray RST    stray_rst
  ACK          none
  data         orphan_data > R
  FIN          none > .
  keepalive    orphan_stray > .
  bad ACK      challenged_ack > .
  old TS       paws > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

time_wait
  SYN again    time_wait_stray > .
  newer SYN    none > S.
  SYN-ACK      time_wait_stray > .
  exact RST    time_wait_reset
  RST          time_wait_reset
  stray RST    time_wait_reset
  ACK          time_wait_quiet
  data         time_wait_stray > .
  FIN          time_wait_stray > .
  keepalive    time_wait_stray > .
  bad ACK      time_wait_quiet
  old TS       time_wait_stray > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags

close_wait
  SYN again    challenged_syn > .
  newer SYN    challenged_syn > .
  SYN-ACK      challenged_syn > .
  exact RST    pass
  RST          challenged_rst > .
  stray RST    stray_rst
  ACK          pass
  data         pass
  FIN          pass
  keepalive    pass
  bad ACK      challenged_ack > .
  old TS       paws > .
  null         odd_flags
  xmas         odd_flags
  SYN+FIN      odd_flags
  SYN+RST      odd_flags
`

// TestMatrix shows every state every kind of segment, over both families.
func TestMatrix(t *testing.T) {
	families(t, func(t *testing.T, p pair) {
		var got strings.Builder
		for n, state := range []string{
			"no flow", "no flow, cookie sent", "dialing", "syn_received", "creating", "established", "orphan in fin_wait_1", "time_wait", "close_wait",
		} {
			fmt.Fprintf(&got, "\n%s\n", state)
			for _, kind := range kinds() {
				r, h := prepare(t, p, uint8(n))
				r.sent = nil
				s := kind.seg(r.nearly(p, h))
				res, _ := r.in(p, s)
				what := res.Verdict.String()
				if res.Verdict == Dropped {
					what = res.Cause.String()
				}
				if len(r.sent) > 0 {
					what += " > " + letters(r.reply().flags)
				}
				fmt.Fprintf(&got, "  %-12s %s\n", kind.name, what)
			}
		}
		if got.String() != matrix {
			t.Errorf("got:\n%s", got.String())
		}
	})
}

func letters(flags uint8) string {
	var b strings.Builder
	for i, bit := range []uint8{syn, fin, rst, ack} {
		if flags&bit != 0 {
			b.WriteByte("SFR."[i])
		}
	}
	return b.String()
}

// numbers are what a client in the prepared state would use.
type numbers struct{ next, ack uint32 }

// nearly looks them up.
func (r *rig) nearly(p pair, h Handle) numbers {
	n := numbers{irs + 1, 7}
	if c, ok := r.t.resolve(h); ok {
		n.next, n.ack = c.cliNxt, c.sndNxt
		c.unlock()
	}
	return n
}

type kind struct {
	name string
	seg  func(n numbers) seg
}

func kinds() []kind {
	return []kind{
		{"SYN again", func(numbers) seg { return seg{flags: syn, seq: irs, opts: linuxSYN()} }},
		{"newer SYN", func(n numbers) seg { return seg{flags: syn, seq: n.next + 5000} }},
		{"SYN-ACK", func(n numbers) seg { return seg{flags: syn | ack, seq: n.next, ack: n.ack} }},
		{"exact RST", func(n numbers) seg { return seg{flags: rst, seq: n.next} }},
		{"RST", func(n numbers) seg { return seg{flags: rst, seq: n.next + 9} }},
		{"stray RST", func(n numbers) seg { return seg{flags: rst, seq: n.next - 9} }},
		{"ACK", func(n numbers) seg { return seg{flags: ack, seq: n.next, ack: n.ack} }},
		{"data", func(n numbers) seg { return seg{flags: ack, seq: n.next, ack: n.ack, data: 9} }},
		{"FIN", func(n numbers) seg { return seg{flags: fin | ack, seq: n.next, ack: n.ack} }},
		{"keepalive", func(n numbers) seg { return seg{flags: ack, seq: n.next - 1, ack: n.ack} }},
		{"bad ACK", func(n numbers) seg { return seg{flags: ack, seq: n.next, ack: n.ack + 9} }},
		{"old TS", func(n numbers) seg {
			return seg{flags: ack, seq: n.next, ack: n.ack, opts: tsOpt(clientTS-9, 0), data: 9}
		}},
		{"null", func(n numbers) seg { return seg{seq: n.next} }},
		{"xmas", func(n numbers) seg { return seg{flags: fin | urg | 8, seq: n.next} }},
		{"SYN+FIN", func(n numbers) seg { return seg{flags: syn | fin, seq: irs} }},
		{"SYN+RST", func(n numbers) seg { return seg{flags: syn | rst, seq: irs} }},
	}
}
