package metrics

import (
	"slices"
	"strconv"

	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/netstack/link"
)

// stats shortens the rows' function types.
type stats = netstack.Stats

// Directions as the stack sees them: rx is from the device, tx to it.
const (
	rx = "rx"
	tx = "tx"
)

func stackMetrics() []metric[stats] {
	return slices.Concat(linkMetrics(), lanMetrics(), admissionMetrics(), flowMetrics(), datagramMetrics(), tcpMetrics(), icmpMetrics())
}

func linkMetrics() []metric[stats] {
	return []metric[stats]{
		perQueue("device_frames_total", "Frames; a superframe is one.",
			func(c *link.Counters) uint64 { return c.Frames }),
		perQueue("device_bytes_total", "Bytes of IP packets.",
			func(c *link.Counters) uint64 { return c.Bytes }),
		perQueue("device_superframes_total", "Frames with a GSO type: up to 64 KiB of TCP that crossed the device in one piece.",
			func(c *link.Counters) uint64 { return c.Superframes }),
		perQueue("device_superframe_bytes_total", "Bytes of IP packets in superframes.",
			func(c *link.Counters) uint64 { return c.SuperframeBytes }),
		perQueue("device_partial_checksum_frames_total", "Frames whose checksum the other side of the device completes.",
			func(c *link.Counters) uint64 { return c.PartialChecksum }),
		perQueue("device_software_segmented_frames_total", "Superframes that had to be segmented here because the device cannot.",
			func(c *link.Counters) uint64 { return c.SoftwareGSO }),
		perQueue("device_refused_superframes_total", "Superframes the kernel refused (EINVAL) and that were segmented here instead; after three none is tried again.",
			func(c *link.Counters) uint64 { return c.Refused }),
		perQueue("device_merged_frames_total", "Frames that were merged into superframes here, because the device delivers them one by one.",
			func(c *link.Counters) uint64 { return c.Merged }),
		perQueue("device_outdated_acks_total", "Acknowledgments that were not delivered to the stack, because the next frame of the batch acknowledges more (devices that deliver frames one by one).",
			func(c *link.Counters) uint64 { return c.Outdated }),
		perQueue("device_checksummed_frames_total", "Frames whose checksum was computed here.",
			func(c *link.Counters) uint64 { return c.Verified }),
		perQueue("device_split_superframes_total", "UDP superframes that were split into datagrams here.",
			func(c *link.Counters) uint64 { return c.Split }),
		perQueue("device_waited_frames_total", "Frames that had to wait because the device took no more.",
			func(c *link.Counters) uint64 { return c.Waited }),
		{
			name: "device_waiting_frames", kind: gauge, labels: []string{"queue"},
			help: "Frames that wait for the device to take more.",
			emit: func(s *stats, put put) {
				for i := range s.Link.Queues {
					put(float64(s.Link.Queues[i].Waiting), strconv.Itoa(i))
				}
			},
		},
		{
			name: "device_frames_dropped_total", kind: counter, labels: []string{"direction", "reason"},
			help: "Frames dropped, by why.",
			emit: func(s *stats, put put) {
				for i, n := range s.Link.Drops {
					r := link.DropReason(i)
					put(float64(n), dropDirection(r), r.String())
				}
			},
		},
	}
}

func dropDirection(r link.DropReason) string {
	if r.Inbound() {
		return rx
	}
	return tx
}

// perQueue is a counter of each queue and direction.
func perQueue(name, help string, read func(*link.Counters) uint64) metric[stats] {
	return metric[stats]{
		name: name, kind: counter, help: help, labels: []string{"queue", "direction"},
		emit: func(s *stats, put put) {
			for i := range s.Link.Queues {
				q := &s.Link.Queues[i]
				put(float64(read(&q.Rx)), strconv.Itoa(i), rx)
				put(float64(read(&q.Tx)), strconv.Itoa(i), tx)
			}
		},
	}
}

func admissionMetrics() []metric[stats] {
	return []metric[stats]{
		level("tcp_half_open", "Connection attempts being dialled or in their handshake now.",
			func(s *stats) int { return s.Flows.HalfOpen }),
		level("tcp_established", "Connections handed to a handler and not yet closed.",
			func(s *stats) int { return s.Established }),
		{
			name: "tcp_attempts_total", kind: counter, labels: []string{"result"},
			help: "Connection attempts that ended, by how. refused: reset because the upstream refused or the policy forbids it. dropped: left unanswered by the handler. handshake_failed: the client did not finish. half_open_limit: SYNs past stack.max_half_open or a share of it, answered as stack.overflow says; who comes back with a cookie is counted once more by how that ends. connection_limit: reset at stack.max_connections.",
			emit: func(s *stats, put put) {
				put(float64(s.Accepted), "accepted")
				put(float64(s.Refused), "refused")
				put(float64(s.Dropped), "dropped")
				put(float64(s.HandshakeFailed), "handshake_failed")
				put(float64(s.HalfOpenLimit), "half_open_limit")
				put(float64(s.ConnectionLimit), "connection_limit")
			},
		},
	}
}

func datagramMetrics() []metric[stats] {
	return []metric[stats]{
		byDirection("udp_datagrams_total", "UDP datagrams from (rx) and to (tx) clients.",
			func(s *stats) (uint64, uint64) { return s.DatagramsIn, s.DatagramsOut }),
		byDirection("udp_datagram_bytes_total", "Payload of these datagrams.",
			func(s *stats) (uint64, uint64) { return s.DatagramBytesIn, s.DatagramBytesOut }),
		total("udp_datagrams_bad_total", "UDP datagrams dropped because their length or checksum was wrong.",
			func(s *stats) uint64 { return s.DatagramsBad }),
		total("udp_datagrams_rejected_total", "UDP datagrams answered with ICMP port unreachable.",
			func(s *stats) uint64 { return s.DatagramsRejected }),
	}
}

// byDirection is a counter that comes as received and sent.
func byDirection(name, help string, read func(*stats) (uint64, uint64)) metric[stats] {
	return split(name, help, "direction", [2]string{rx, tx}, read)
}

func tcpMetrics() []metric[stats] {
	return []metric[stats]{
		byDirection("tcp_segments_total", "TCP segments as the stack counts them: a superframe is one.",
			func(s *stats) (uint64, uint64) { return s.TCP.SegmentsReceived, s.TCP.SegmentsSent }),
		total("tcp_segment_send_errors_total", "TCP segments the stack could not send.",
			func(s *stats) uint64 { return s.TCP.SegmentSendErrors }),
		total("tcp_retransmits_total", "TCP segments sent again, for any cause.",
			func(s *stats) uint64 { return s.TCP.Retransmits }),
		total("tcp_fast_retransmits_total", "TCP segments sent again in fast recovery.",
			func(s *stats) uint64 { return s.TCP.FastRetransmits }),
		total("tcp_slow_start_retransmits_total", "TCP segments sent again in slow start.",
			func(s *stats) uint64 { return s.TCP.SlowStartRetransmits }),
		total("tcp_retransmission_timeouts_total", "Retransmission timers that ran out.",
			func(s *stats) uint64 { return s.TCP.Timeouts }),
		byDirection("tcp_resets_total", "TCP resets received and sent.",
			func(s *stats) (uint64, uint64) { return s.TCP.ResetsReceived, s.TCP.ResetsSent }),
		total("tcp_invalid_segments_total", "TCP segments that could not be parsed.",
			func(s *stats) uint64 { return s.TCP.InvalidSegments }),
		total("tcp_checksum_errors_total", "TCP segments with a wrong checksum.",
			func(s *stats) uint64 { return s.TCP.ChecksumErrors }),
		level("tcp_buffer_growth_bytes", "By how much the buffers of connections have grown since they began, all together.",
			func(s *stats) int64 { return s.BufferGrowth }),
		level("tcp_buffer_budget_bytes", "Where none grows any more: stack.tcp.buffer_budget.",
			func(s *stats) int64 { return s.BufferBudget }),
		level("tcp_endpoints_established", "TCP endpoints in ESTABLISHED.",
			func(s *stats) uint64 { return s.TCP.CurrentEstablished }),
		level("tcp_endpoints_connected", "TCP endpoints from ESTABLISHED until they are forgotten, TIME_WAIT included.",
			func(s *stats) uint64 { return s.TCP.CurrentConnected }),
		total("tcp_endpoints_reset_total", "TCP endpoints that went from ESTABLISHED or CLOSE_WAIT straight to closed.",
			func(s *stats) uint64 { return s.TCP.EstablishedResets }),
		total("tcp_endpoints_timedout_total", "TCP endpoints given up because the client stayed silent: keepalive (event client_silent) or retransmissions ran out.",
			func(s *stats) uint64 { return s.TCP.EstablishedTimedout }),
		total("tcp_port_reservations_failed_total", "TCP endpoints that could not reserve their address and port.",
			func(s *stats) uint64 { return s.TCP.FailedPortReservation }),
	}
}

func icmpMetrics() []metric[stats] {
	return []metric[stats]{
		total("icmp_echo_requests_total", "ICMP echo requests received.",
			func(s *stats) uint64 { return s.ICMP.EchoReceived }),
		total("icmp_echo_replies_total", "ICMP echo replies sent.",
			func(s *stats) uint64 { return s.ICMP.EchoRepliesSent }),
		byDirection("icmp_unreachable_total", "ICMP destination unreachable received and sent.",
			func(s *stats) (uint64, uint64) { return s.ICMP.UnreachableReceived, s.ICMP.UnreachableSent }),
		total("icmp_rate_limited_total", "ICMP messages not sent because of the rate limit.",
			func(s *stats) uint64 { return s.ICMP.RateLimited }),
	}
}
