// Command bench measures the gateway beside plain veth and beside other gateways,
// all in the same run, and prints one Markdown table.
//
// Absolute figures move with the machine and with its hour; ratios within a run
// hold. So every round measures every subject once, one after the other, and what
// is printed are medians over the rounds. README.md says how to read them.
//
//	go run ./bench                            # everything, about ten minutes
//	go run ./bench -only tungate,kernel -tests rr,bulk -rounds 1
//
// Every subject gets a fresh pair of namespaces and a fresh process each round
// (internal/testutil), cubic at both ends. The load is iperf3 for bulk, and this
// program again, started inside the namespaces with -role, for the rest: its
// clients and its server make raw system calls from threads of their own, so that
// what is measured is the path and not Go's scheduler.
package main
