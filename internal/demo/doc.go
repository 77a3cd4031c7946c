// Package demo shows in a few seconds, on the machine at hand and without touching
// it, what the gateway does: gateway demo.
//
// # Theory of operation
//
// Three processes, all of them this program's own binary:
//
//	client                     gateway (Run)              server
//	in a namespace of its own  in the host's namespaces   on the host's loopback
//	─────────────────────────  ─────────────────────────  ──────────────────────
//	kernel sockets ── tun0 ─►  userspace stack ─ proxy ─► 127.0.0.1 and ::1
//	events, JSON on stdout ─►  progress, table
//	waits on stdin         ◄─  memory sampled
//
// The client is an ordinary program with kernel sockets: it asks 192.0.2.1 and
// fd00:2::1, addresses that exist nowhere, and the gateway's Options.Forward leads
// each of their ports to the server. Nothing leaves the machine. The server is a
// process of its own so that the memory and the time of the gateway are not mixed
// with it.
//
// # What is checked
//
// Every byte. HTTP bodies are seeded streams whose SHA-256 both ends compute alone.
// Bulk transfers are numbered records of one seeded block, compared byte by byte by
// the receiver at the price of a memcmp: a SHA-256 of every byte on both ends would
// take more of two cores than the gateway does, and be what is measured.
//
// # What is measured
//
// Connections and round trips as the client sees them; bulk rates as the receiver
// sees them, from its first byte to the end of the stream; memory as the difference
// of the gateway's resident set with and without idle connections, each after a
// garbage collection.
//
// # Ends
//
// The client dies with the gateway (package nsrun), the server ends with its stdin.
// Run waits for both.
package demo
