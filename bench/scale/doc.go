// Command scale opens a million real connections to the gateway, holds them, and
// ends them in the three ways clients have: reset, closed, or gone silently.
//
//	go run ./bench/scale -n 50000                        # a minute or two
//	go run ./bench/scale -n 1000000 -out docs            # the picture in docs/
//
// The clients are kernel sockets, 18,000 to a process (RLIMIT_NOFILE), in the lab's
// client namespace; the gateway runs examples/echo.yaml there. Each connection
// carries one byte there and back before it counts as open. Beside them a prober
// opens a fresh connection twenty times a second, from another address, from start
// to end: what it waits is what a newcomer waits.
//
// One run is
//
//  1. open -n connections; at 10k, 100k, 300k and 1M: rate, memory, CPU, GC;
//  2. hold them for -hold, one in a hundred sending a byte each second;
//  3. send a byte on each: those without an echo are lost;
//  4. for each of -ends: end all at once, wait for the gateway's memory, and open all
//     again before the next.
//
// Silent clients are real ones whose packets, RSTs with them, an nftables rule of
// the namespace drops: the gateway finds out by keepalive alone (-keepalive).
package main
