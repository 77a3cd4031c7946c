package metrics

import "github.com/tungate/tungate/netstack/minisock"

// flowMetrics are those of the table that knows every TCP connection's state.
func flowMetrics() []metric[stats] {
	return []metric[stats]{
		{
			name: "tcp_flows", kind: gauge, labels: []string{"state"},
			help: "TCP connections by state, seen from the gateway (RFC 9293). dialing: SYN seen and not answered; creating: handshake done, endpoint being made; linger: closed by the client first.",
			emit: func(s *stats, put put) {
				for i, n := range s.Flows.States {
					if st := minisock.State(i); st != minisock.Free {
						put(float64(n), st.String())
					}
				}
			},
		},
		level("tcp_flow_records", "Records of TCP connections, 128 bytes each.",
			func(s *stats) int { return s.Flows.Records }),
		level("tcp_orphans", "TCP connections that are closed here and not by their client, without an endpoint.",
			func(s *stats) int { return s.Flows.Orphans }),
		{
			name: "tcp_flow_events_total", kind: counter, labels: []string{"event"},
			help: "What happened to TCP connections outside the stack: handshakes, cookies, challenges, closing, and packets dropped before the stack, by why. probe_sent: a silent client was asked; client_silent: it was given up. nudged: the stack had stopped to send again what it did not acknowledge. unacknowledged: it acknowledged nothing for longer than stack.tcp.user_timeout, and the stack had not noticed. shed: ended because memory was short.",
			emit: func(s *stats, put put) {
				for i, n := range s.Flows.Counters {
					if c := minisock.Cause(i); c != minisock.None {
						put(float64(n), c.String())
					}
				}
			},
		},
	}
}
