package metrics

import "github.com/tungate/tungate/lan"

// lanMetrics are those of a TAP's Ethernet side; on a TUN all are 0.
func lanMetrics() []metric[stats] {
	return []metric[stats]{
		level("lan_neighbors", "Addresses of guests whose Ethernet address is known.",
			func(s *stats) int { return s.Link.LAN.Neighbors }),
		level("lan_stations", "Ethernet addresses that have them.",
			func(s *stats) int { return s.Link.LAN.Stations }),
		level("lan_addresses_resolving", "Addresses being asked for, by ARP or neighbor discovery.",
			func(s *stats) int { return s.Link.LAN.Resolving }),
		level("lan_packets_pending", "Packets that wait for the answer.",
			func(s *stats) int { return s.Link.LAN.Pending }),
		level("lan_dhcp_leases", "DHCP leases in force.",
			func(s *stats) int { return s.Link.LAN.Leases }),
		level("lan_dhcp_offers", "DHCP offers not yet taken.",
			func(s *stats) int { return s.Link.LAN.Offers }),
		{
			name: "lan_events_total", kind: counter, labels: []string{"event"},
			help: "What happened on the link of a TAP: neighbors found and lost, ARP, neighbor discovery, router advertisements and DHCP messages.",
			emit: func(s *stats, put put) {
				for i, n := range s.Link.LAN.Events {
					put(float64(n), lan.Event(i).String())
				}
			},
		},
		{
			name: "lan_frames_dropped_total", kind: counter, labels: []string{"direction", "reason"},
			help: "Ethernet frames dropped below the IP stack, by why.",
			emit: func(s *stats, put put) {
				for i, n := range s.Link.LAN.Drops {
					r := lan.DropReason(i)
					direction := tx
					if r.Inbound() {
						direction = rx
					}
					put(float64(n), direction, r.String())
				}
			},
		},
	}
}
