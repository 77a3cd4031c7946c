// Package testutil builds the small networks in which the gateway is tried: a
// client and a server network namespace joined by a veth pair, the gateway in the
// client's, and everything the client sends without the gateway's mark routed
// into its device.
//
//	client namespace                               server namespace
//	 client sockets ─ tun0 ─ gateway ─ up0 ═══════ up0 ─ 203.0.113.0/24, fd00:113::/64
//	 198.18.0.1      (table 100)      192.0.2.1     192.0.2.2
//	 fd00:18::1                       fd00:2::1     fd00:2::2
//
// Everything here returns errors and knows no testing.T, since the benchmarks use
// it too; e2e wraps it. It needs root and iproute2. What a run leaves behind when
// it is killed (names below /run/netns carry the owner's pid) the next one
// removes: [Sweep].
package testutil
