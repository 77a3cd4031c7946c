package offload

// Verdict says what is wrong with a frame.
type Verdict uint8

// The verdicts, in the order in which the steps can give them.
const (
	OK           Verdict = iota
	Truncated            // ends before a header or a length it claims
	BadVersion           // neither IPv4 nor IPv6
	BadIP                // IP header length, total length or header checksum wrong
	BadTransport         // TCP data offset or UDP length wrong
	BadHdr               // virtio_net_hdr contradicts the packet
	BadGSO               // superframe of a type never accepted (UFO, tunnels, unknown)
	NumVerdicts          // for arrays of counters
)

var verdictNames = [NumVerdicts]string{
	OK: "ok", Truncated: "truncated", BadVersion: "bad_version", BadIP: "bad_ip_header",
	BadTransport: "bad_transport_header", BadHdr: "bad_vnet_hdr", BadGSO: "gso_type",
}

// String returns the word used as a metric label.
func (v Verdict) String() string {
	if v < NumVerdicts {
		return verdictNames[v]
	}
	return "unknown"
}
