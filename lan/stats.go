package lan

// DropReason says why a frame from a guest, or a packet to one, was dropped.
type DropReason uint8

// The reasons of a drop. The first group is the frame's own fault or not for us,
// the next are those of ARP, NDP and DHCP, the last is of the other direction.
const (
	DropTruncated   DropReason = iota // ends before a header or a length it claims
	DropVLAN                          // VLAN tag
	DropEtherType                     // neither IPv4, IPv6 nor ARP (LLDP, STP ...)
	DropSourceMAC                     // source is a group address, zero or our own
	DropDestination                   // for another station, or a group address that is not the packet's
	DropMulticast                     // broadcast or multicast that nothing here serves
	DropVersion                       // IP version that is not the EtherType's
	DropFamily                        // IP version the gateway has no address of
	DropSource                        // IP source not on the link, or the gateway's own
	DropSpoofed                       // IP source that another station has

	DropARP        // malformed, or about somebody else than its sender
	DropNDP        // malformed, behind extension headers, or about somebody else
	DropHopLimit   // NDP with a hop limit that says it was routed
	DropChecksum   // ICMPv6 or UDP checksum wrong
	DropRogueRA    // router advertisement of a guest
	DropRedirect   // ICMPv6 redirect
	DropRogueDHCP  // DHCP server's message of a guest
	DropDHCP       // DHCP message that does not decode, or misses what its type needs
	DropDHCPRelay  // relayed DHCP: guests are on the link
	DropDHCPClient // DHCP hardware address is not the frame's source
	DropDHCPServer // DHCP message to another server
	DropDHCPFull   // no address left, for this station or at all

	DropOffLink     // outbound: to no address on the link
	DropUnresolved  // outbound: nobody answered for the address
	DropPendingFull // outbound: too many packets wait for an address already
	NumDropReasons
)

var dropNames = [NumDropReasons]string{
	DropTruncated: "truncated", DropVLAN: "vlan", DropEtherType: "ethertype",
	DropSourceMAC: "source_mac", DropDestination: "destination_mac", DropMulticast: "multicast",
	DropVersion: "bad_version", DropFamily: "family", DropSource: "source", DropSpoofed: "spoofed",
	DropARP: "bad_arp", DropNDP: "bad_ndp", DropHopLimit: "hop_limit", DropChecksum: "bad_checksum",
	DropRogueRA: "rogue_ra", DropRedirect: "redirect", DropRogueDHCP: "rogue_dhcp",
	DropDHCP: "bad_dhcp", DropDHCPRelay: "dhcp_relay", DropDHCPClient: "dhcp_client",
	DropDHCPServer: "dhcp_other_server", DropDHCPFull: "dhcp_full",
	DropOffLink: "off_link", DropUnresolved: "unresolved", DropPendingFull: "pending_full",
}

// String returns the metric label.
func (r DropReason) String() string {
	if r < NumDropReasons {
		return dropNames[r]
	}
	return "unknown"
}

// Inbound reports whether r concerns frames from guests.
func (r DropReason) Inbound() bool { return r < DropOffLink }

// Event is something that happened and is counted.
type Event uint8

// The events.
const (
	EventLearned     Event = iota // an address became a neighbour's
	EventExpired                  // a neighbour was silent for NeighborTTL
	EventEvicted                  // a neighbour made room for another
	EventMoved                    // an address went to another station, its holder being silent
	EventMoveRefused              // a station claimed an address whose holder answered
	EventConflict                 // a guest claimed an address of the gateway

	EventARPAnswered // requests for an address of the gateway
	EventARPProxied  // requests answered for an address behind the gateway
	EventARPAsked    // requests of ours
	EventNDPAnswered // the same three of NDP
	EventNDPProxied
	EventNDPAsked

	EventRS // router solicitations received
	EventRA // router advertisements sent

	EventDHCPDiscover // valid messages received
	EventDHCPRequest
	EventDHCPDecline
	EventDHCPRelease
	EventDHCPInform
	EventDHCPOffer // messages sent
	EventDHCPAck
	EventDHCPNak
	NumEvents
)

var eventNames = [NumEvents]string{
	EventLearned: "neighbor_learned", EventExpired: "neighbor_expired", EventEvicted: "neighbor_evicted",
	EventMoved: "neighbor_moved", EventMoveRefused: "neighbor_move_refused", EventConflict: "address_conflict",
	EventARPAnswered: "arp_answered", EventARPProxied: "arp_proxied", EventARPAsked: "arp_asked",
	EventNDPAnswered: "ndp_answered", EventNDPProxied: "ndp_proxied", EventNDPAsked: "ndp_asked",
	EventRS: "ra_solicited", EventRA: "ra_sent",
	EventDHCPDiscover: "dhcp_discover", EventDHCPRequest: "dhcp_request", EventDHCPDecline: "dhcp_decline",
	EventDHCPRelease: "dhcp_release", EventDHCPInform: "dhcp_inform",
	EventDHCPOffer: "dhcp_offer", EventDHCPAck: "dhcp_ack", EventDHCPNak: "dhcp_nak",
}

// String returns the metric label.
func (e Event) String() string {
	if e < NumEvents {
		return eventNames[e]
	}
	return "unknown"
}

// Stats is a snapshot of a LAN's counters and of how full its tables are.
type Stats struct {
	Drops  [NumDropReasons]uint64
	Events [NumEvents]uint64

	Neighbors int // addresses whose station is known
	Stations  int // that have them
	Resolving int // addresses asked for
	Pending   int // packets that wait for an answer
	Leases    int // DHCP leases in force
	Offers    int // DHCP offers not yet taken
}
