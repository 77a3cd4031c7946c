package metrics

import (
	"github.com/tungate/tungate/flow"
	"github.com/tungate/tungate/proxy"
)

func proxyMetrics() []metric[proxy.Stats] {
	return []metric[proxy.Stats]{
		perProtocol("proxy_flows", gauge, "Flows being served now.",
			func(f *proxy.FlowStats) float64 { return float64(f.Open) }),
		perProtocol("proxy_flows_opened_total", counter, "Flows served so far, those being served included.",
			func(f *proxy.FlowStats) float64 { return float64(f.Opened) }),
		{
			name: "proxy_flows_closed_total", kind: counter, labels: []string{"protocol", "reason"},
			help: "Flows that ended, by why.",
			emit: eachProtocol(func(f *proxy.FlowStats, protocol string, put put) {
				for _, r := range flow.CloseReasons() {
					put(float64(f.Closed[r]), protocol, r.String())
				}
			}),
		},
		{
			name: "proxy_bytes_total", kind: counter, labels: []string{"protocol", "direction"},
			help: "Payload relayed: up is from client to upstream, down the other way.",
			emit: eachProtocol(func(f *proxy.FlowStats, protocol string, put put) {
				put(float64(f.BytesUp), protocol, "up")
				put(float64(f.BytesDown), protocol, "down")
			}),
		},
		{
			name: "proxy_dials_total", kind: counter, labels: []string{"protocol", "result"},
			help: "Upstream dials that ended, by how. denied: the destination policy forbids it. no_ports: no source port was left. no_files: the limit of open files was reached.",
			emit: eachProtocol(func(f *proxy.FlowStats, protocol string, put put) {
				for r, n := range f.Dials {
					put(float64(n), protocol, proxy.DialResult(r).String())
				}
			}),
		},
		total("proxy_udp_sessions_evicted_total", "UDP sessions ended for a new one at proxy.udp.max_sessions.",
			func(s *proxy.Stats) uint64 { return s.UDPSessionLimit }),
		total("proxy_udp_datagrams_dropped_total", "Datagrams from clients that the upstream socket took no more of.",
			func(s *proxy.Stats) uint64 { return s.UDPDropped }),
		total("proxy_file_shortages_total", "Times at which new flows began to be refused because no file descriptor was left.",
			func(s *proxy.Stats) uint64 { return s.FilesShortages }),
		level("proxy_file_shortage", "1 while new flows are refused because no file descriptor is left, and for some seconds more.",
			func(s *proxy.Stats) int { return truth(s.FilesShort) }),
	}
}

// perProtocol is a row with the label protocol alone.
func perProtocol(name string, k kind, help string, read func(*proxy.FlowStats) float64) metric[proxy.Stats] {
	return metric[proxy.Stats]{
		name: name, kind: k, help: help, labels: []string{"protocol"},
		emit: eachProtocol(func(f *proxy.FlowStats, protocol string, put put) { put(read(f), protocol) }),
	}
}

// eachProtocol calls emit for both protocols.
func eachProtocol(emit func(f *proxy.FlowStats, protocol string, put put)) func(*proxy.Stats, put) {
	return func(s *proxy.Stats, put put) {
		emit(&s.TCP, flow.TCP.String(), put)
		emit(&s.UDP, flow.UDP.String(), put)
	}
}
