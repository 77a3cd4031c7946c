// Command flood lets hping3 flood the gateway while 200 real clients connect, and
// says what became of them.
//
//	go run ./bench/flood -seconds 5
//	go run ./bench/flood -configs examples/echo.yaml -floods syn,trickle
//
// The floods are SYNs at full rate, the same over IPv6 (by this program itself, since
// hping3 has no IPv6), the same with strangers for clients, SYNs at 50 a
// second, and ACKs, RSTs, FINs and data of no connection at full rate. Their sources
// are 4096 addresses of 198.19.0.0/16, drawn at random for each packet by a rule of
// nftables in the namespace: hping3's own --rand-source would draw martians too, and
// addresses of nobody here. Nothing leaves the namespaces; replies to those sources
// end in the client's kernel. The SYNs over IPv6 come from 4096 prefixes of 64 bits in
// fd00:18:1::/48, since the gateway's shares of the backlog go by those.
//
// Clients are kernel sockets that connect, exchange one byte and close, spread
// evenly over the flood, by the lab's client namespace, beside one that stays and
// goes on exchanging bytes. Strangers have an address each, of 198.18.64.0/18.
// examples/direct.yaml has an echo server in the other namespace. The gateway is
// fresh for each flood. Its memory and tables are looked at ten times a second, and
// once more after the flood and the handshake's timeout.
package main
