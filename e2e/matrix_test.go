package e2e

import (
	"fmt"
	"net/netip"
	"testing"
)

// matrix are the devices of the proof: both kinds, one queue and two, all offloads
// on, each off, and all off.
func matrix() []string {
	var all []string
	for _, kind := range []string{"tun", "tap"} {
		for _, queues := range []int{1, 2} {
			device := fmt.Sprintf("%s queues=%d", kind, queues)
			all = append(all, device, device+" all-off")
			for _, o := range offloads() {
				all = append(all, device+" no-"+o)
			}
		}
	}
	return all
}

// TestDevices carries bulk both ways, many connections, and datagrams over every
// device of the matrix. The whole suite runs over one of them at a time, with
// make e2e-matrix.
func TestDevices(t *testing.T) {
	if deviceChosen() {
		return // one of them, for every test
	}
	for _, device := range matrix() {
		t.Run(device, func(t *testing.T) {
			t.Setenv(deviceEnv, device)
			lab := newLab(t)
			gw := start(t, lab, "direct.yaml", nil)
			eachFamily(t, func(t *testing.T, f family) {
				to := serve(t, lab.Server, f.server, 0, echo)
				echoBulk(t, lab, to, 4, 8<<20)
				together(t, 50, func(int) error {
					c, err := lab.Client.Dial("tcp", to.String(), soon)
					if err != nil {
						return err
					}
					defer c.Close()
					deadline(t, c, soon)
					return exchange(c)
				})
				udp := serveUDP(t, lab.Server, netip.AddrPortFrom(f.server, 0))
				for _, size := range []int{0, 1, 1400, 9000, 60000} {
					if err := exchangeUDP(lab.Client, udp, size); err != nil {
						t.Errorf("datagram of %d bytes: %v", size, err)
					}
				}
			})
			judgeDrops(t, gw)
		})
	}
}

// judgeDrops fails for frames that a healthy device would not lose.
func judgeDrops(t *testing.T, gw *running) {
	t.Helper()
	s := gw.metrics(t)
	for _, reason := range []string{"bad_vnet_hdr", "bad_checksum", "bad_ip_header", "bad_transport_header", "truncated", "gso_type", "tx_error", "tx_build", "too_big"} {
		if n := s.Sum("tungate_device_frames_dropped_total", `reason="`+reason+`"`); n != 0 {
			t.Errorf("%v frames dropped: %s", n, reason)
		}
	}
}
