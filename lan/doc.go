// Package lan is everything Ethernet that a TAP device needs below the IP stack:
// headers, neighbors, ARP, neighbor discovery, router advertisements and a DHCPv4
// server. Frames go in and come out as bytes; there is no descriptor, no goroutine
// and no clock here, and no IP stack either.
//
// # Theory of operation
//
// The gateway is one station on a link whose other stations are guests, told apart
// by their MACs. It has addresses there ([Options].Addresses); the networks of those
// are on the link, which means that every other address in them is some guest's.
//
// Inbound ([LAN.Input]), in this order:
//
//  1. Ethernet: our MAC, broadcast or the packet's own multicast group; from one
//     station, not from us; no VLAN tag. Anything else is dropped and counted.
//  2. Messages to the LAN: ARP, neighbor discovery, DHCP to port 67. They are
//     served under the lock and never reach the stack. Other broadcast and
//     multicast has no taker and is dropped.
//  3. Data: the source address must be on the link and the sender's. That holds at
//     once if the neighbor is known and was looked at in the last second, which
//     takes no lock; else it is looked at, and a new neighbor learned.
//
// Outbound, the next hop of a packet to a guest is always that guest: [LAN.Lookup]
// gives its MAC without a lock, for the stack's goroutines. If it has none,
// [LAN.Resolve] lets the packet wait, at most 4 for an address, and asks: 3 times, a
// second apart.
//
// # Who has an address
//
// The first who uses one. Another station that claims it, by ARP, neighbor
// discovery or a data frame, is not believed; instead the holder is asked whether
// it is still there, by a unicast question, and the claimant gets the address if
// there is no answer within 3 s. So a guest cannot take an address from one that is
// alive, and a machine that takes over from a dead one needs no help. An address
// that is leased or reserved by DHCP has its client for a holder from the start.
//
// # Limits
//
// The table of neighbors is bounded, and so is each station's share of it. At its
// own bound a station loses its quietest address. At the bound of all, addresses
// that were heard of in one second only go before those heard of again, so invented
// ones displace each other. What was displaced is learned again from the next frame
// or by asking. Neighbors that are silent for [Options].NeighborTTL are forgotten.
//
// Waiting packets are bounded in all, and disputes about addresses may take half of
// the questions open at once. DHCP leases are bounded in all and for a station;
// offers and leases that ran out make room, leases in force do not. Two answers
// that others could provoke are limited: announcements that defend an address, to
// one in 10 s (RFC 5227), and router advertisements, to one in 3 s (RFC 4861).
//
// # Timers
//
// The caller calls [LAN.Tick] when [LAN.Next] says so. What is due then: questions
// (1 s, 3 times), router advertisements (200 to 600 s, and up to 0.5 s after a
// solicitation), announcements of the gateway's addresses (2, when it starts),
// neighbors and leases that run out.
//
// # DHCP
//
// Leases are kept in memory. A restart forgets them, and nothing is lost by it: the
// search for a free address begins where a client's MAC and identifier lead, and a
// client that comes back with an address of the pool that is free gets it, as from
// an authoritative server. A client is its MAC and its identifier together.
//
// # Ownership and locks
//
// Frames given to Input stay the caller's; frames given to a send function are the
// receiver's. One lock guards all but the reading of neighbors and counters. No
// function of the caller's is called with it held.
package lan
