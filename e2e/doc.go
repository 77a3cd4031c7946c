// Package e2e proves with real clients what the gateway promises.
//
// Every test builds two network namespaces of its own (internal/testutil), starts
// the built binary in the client's, and uses curl, iperf3, dig, ping and plain
// kernel sockets through the device, over IPv4 and IPv6:
//
//	bulk_test.go       files and iperf3 both ways, intact, in superframes
//	tcp_test.go        2,000 connections at once, half-close, refusal, silence, abort
//	flow_test.go       back-pressure, idle and drain timeouts
//	keepalive_test.go  clients whose answers do not come any more
//	udp_test.go        datagrams of every size, closed ports, DNS, ping, fragments
//	policy_test.go     destinations that are denied, the admin server out of reach
//	echo_test.go       every address and port answered by the program itself
//	matrix_test.go     every kind of device: queues, offloads on and off
//	order_test.go      datagrams in order over several queues under load
//	given_test.go      devices that are inherited, or sent over a unix socket
//	lifecycle_test.go  device lost, link down, SIGTERM and SIGKILL under load
//	startup_test.go    configs with faults, a name taken, no permission
//	guest_test.go      guests of a TAP, two of them virtual machines (machine_test.go)
//	exec_test.go       gateway exec and gateway demo, as root and without
//
// Whatever a test does, the namespace of the gateway holds no conntrack entry at
// its end, the gateway has neither died nor printed a panic or a data race, and no
// process is left.
//
// They need root and fail with one sentence without it. TUNGATE_E2E_RACE=1 builds
// the gateway with the race detector; TUNGATE_E2E_DEVICE='tap queues=2 no-tso4' runs
// every test over such a device (device_test.go).
package e2e
