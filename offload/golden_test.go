package offload

// Golden packets, annotated. They were made by an independent program. Between
// 198.18.0.2 / fd00:18::2 port 40000 and 192.0.2.1 / 2001:db8::1.

const goldenSYN4 = `
45 00 00 3c              // version 4, 5 words, total length 60
12 34 40 00              // identification, DF
40 06 a0 72              // TTL 64, TCP, header checksum
c6 12 00 02 c0 00 02 01  // addresses
9c 40 00 50              // ports 40000, 80
0a 0b 0c 0d 00 00 00 00  // seq, ack
a0 02 fa f0              // 10 words, SYN, window
11 ea 00 00              // checksum, urgent pointer
02 04 05 b4 04 02        // MSS 1460, SACK permitted
08 0a 00 00 00 64 00 00 00 00 01 03 03 0a  // timestamps, NOP, window scale 10
`

const goldenOptions4 = `
46 00 00 2e              // 6 words, total length 46
12 34 40 00
40 06 0b 7c
c6 12 00 02 c0 00 02 01
94 04 00 00              // router alert (RFC 2113)
9c 40 00 50
00 00 00 01 01 02 03 04
50 10 fa f0              // 5 words, ACK
23 cb 00 00
68 69
`

const goldenUDP4 = `
45 00 00 1f 12 34 40 00
40 11 a0 84              // UDP
c6 12 00 02 c0 00 02 01
9c 40 00 35              // ports 40000, 53
00 0b 16 ea              // length 11, checksum
61 62 63
`

const goldenTCP6 = `
60 01 23 45              // version 6, flow label
00 23 06 40              // payload length 35, TCP, hop limit 64
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
9c 40 00 50
fffffffe 01020304        // seq 2^32-2, ack
80 18 fa f0              // 8 words, PSH ACK
bd 47 00 00
01 01 08 0a 00 00 00 64 00 00 00 32
78 79 7a
`

const goldenExtensions6 = `
60 01 23 45
00 24 00 40              // payload length 36, Hop-by-Hop
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
3c 00 01 04 00 00 00 00  // Hop-by-Hop: next Destination Options, 8 bytes, PadN
06 00 01 04 00 00 00 00  // Destination Options: next TCP
9c 40 00 50
00 00 00 07 01 02 03 04
50 10 fa f0
e9 71 00 00
`

const goldenICMP4 = `
45 00 00 20 12 34 40 00
40 01 a0 93              // ICMP
c6 12 00 02 c0 00 02 01
08 00 06 fa              // echo request, checksum without pseudo-header
12 34 00 01 70 69 6e 67
`

const goldenICMP6 = `
60 01 23 45
00 0c 3a 40              // payload length 12, ICMPv6
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
80 00 63 de              // echo request, checksum with pseudo-header
12 34 00 01 70 69 6e 67
`

const goldenFragment4 = `
45 00 00 24
12 34 20 00              // MF, offset 0
40 11 c0 7f
c6 12 00 02 c0 00 02 01
9c 40 00 35              // ports that are not to be looked at
00 18 97 e7
61 62 63 64 65 66 67 68
`

// A TCP superframe of 10 bytes, 4 a segment. Sequence number and identification
// wrap inside it.
const goldenSuper4 = `
45 00 00 3e
ffff 40 00               // identification 65535
40 06 b2 a4
c6 12 00 02 c0 00 02 01
9c 40 00 50
fffffffc 01020304        // seq 2^32-4
80 99 fa f0              // CWR ACK PSH FIN
88 46 00 00              // pseudo-header sum
01 01 08 0a 00 00 00 64 00 00 00 32
61 62 63 64 65 66 67 68 69 6a
`

var goldenSegments4 = []string{`
45 00 00 38 ffff 40 00 40 06 b2 aa c6 12 00 02 c0 00 02 01
9c 40 00 50
fffffffc 01020304
80 90 fa f0              // CWR ACK
8d 42 00 00
01 01 08 0a 00 00 00 64 00 00 00 32
61 62 63 64
`, `
45 00 00 38 00 00 40 00 40 06 b2 aa c6 12 00 02 c0 00 02 01
9c 40 00 50
00 00 00 00 01 02 03 04
80 10 fa f0              // ACK
85 b7 00 00
01 01 08 0a 00 00 00 64 00 00 00 32
65 66 67 68
`, `
45 00 00 36 00 01 40 00 40 06 b2 ab c6 12 00 02 c0 00 02 01
9c 40 00 50
00 00 00 04 01 02 03 04
80 19 fa f0              // ACK PSH FIN
e9 10 00 00
01 01 08 0a 00 00 00 64 00 00 00 32
69 6a
`}

// A UDP superframe of 5 bytes, 3 a datagram.
const goldenSuper6 = `
60 01 23 45
00 0d 11 40              // payload length 13, UDP
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
9c 40 00 35
00 0d 2a f3              // length 13, pseudo-header sum
61 62 63 64 65
`

var goldenSegments6 = []string{`
60 01 23 45 00 0b 11 40
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
9c 40 00 35 00 0b 74 2b 61 62 63
`, `
60 01 23 45 00 0a 11 40
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 02
20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
9c 40 00 35 00 0a d4 2a 64 65
`}
