package testutil

// The gateway's counters that tests and benchmarks read (docs/metrics.md).
const (
	metricFrameBytes      = "tungate_device_bytes_total"
	metricSuperframeBytes = "tungate_device_superframe_bytes_total"
)

// SuperframeShare is the share of the bytes in one direction that travelled in
// superframes: towards the client when down, else from it.
func (s Series) SuperframeShare(down bool) float64 {
	dir := `direction="rx"`
	if down {
		dir = `direction="tx"`
	}
	return s.Sum(metricSuperframeBytes, dir) / s.Sum(metricFrameBytes, dir)
}
