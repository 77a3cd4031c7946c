package lan

// Golden frames, annotated. They were made by an independent program. The gateway
// is 02:00:00:00:00:01 with 198.18.0.1/24 and fd00:18::1/64, the guest
// 02:00:00:00:00:0a.

const goldenARPRequest = `
ff ff ff ff ff ff        // to everybody
02 00 00 00 00 0a 08 06  // from the guest, ARP
00 01 08 00 06 04        // Ethernet, IPv4, lengths of their addresses
00 01                    // request
02 00 00 00 00 0a        // sender
c6 12 00 0a              // 198.18.0.10
00 00 00 00 00 00        // target unknown
c6 12 00 01              // 198.18.0.1
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // padding to 60 bytes
`

const goldenARPReply = `
02 00 00 00 00 0a        // to the guest
02 00 00 00 00 01 08 06
00 01 08 00 06 04
00 02                    // reply
02 00 00 00 00 01        // 198.18.0.1 is at the gateway
c6 12 00 01
02 00 00 00 00 0a        // told to the guest
c6 12 00 0a
`

const goldenARPAsk = `
ff ff ff ff ff ff 02 00 00 00 00 01 08 06
00 01 08 00 06 04
00 01                    // request
02 00 00 00 00 01 c6 12 00 01
00 00 00 00 00 00 c6 12 00 0a
`

const goldenARPAnnouncement = `
ff ff ff ff ff ff 02 00 00 00 00 01 08 06
00 01 08 00 06 04
00 01                    // request, as RFC 5227 wants an announcement
02 00 00 00 00 01 c6 12 00 01
00 00 00 00 00 00 c6 12 00 01  // target is sender
`

const goldenNS = `
33 33 ff 00 00 01        // the group of fd00:18::1
02 00 00 00 00 0a 86 dd  // from the guest, IPv6
60 00 00 00 00 20 3a ff  // 32 bytes of ICMPv6, hop limit 255
fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 0a
ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 01
87 00 7c ef 00 00 00 00  // neighbor solicitation, checksum
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
01 01 02 00 00 00 00 0a  // source link-layer address
`

const goldenNA = `
02 00 00 00 00 0a 02 00 00 00 00 01 86 dd
60 00 00 00 00 20 3a ff
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 0a
88 00 9b e3 e0 00 00 00  // neighbor advertisement; router, solicited, override
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
02 01 02 00 00 00 00 01  // target link-layer address
`

const goldenDADProbe = `
33 33 ff 00 00 01 02 00 00 00 00 0a 86 dd
60 00 00 00 00 18 3a ff
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // from nobody yet
ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 01
87 00 7d 8d 00 00 00 00
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
`

const goldenDADDefence = `
33 33 00 00 00 01 02 00 00 00 00 01 86 dd  // to all nodes
60 00 00 00 00 20 3a ff
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
88 00 da 6a a0 00 00 00  // router, override; not solicited
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 01
02 01 02 00 00 00 00 01
`

const goldenNDPAsk = `
33 33 ff 00 00 0a 02 00 00 00 00 01 86 dd
60 00 00 00 00 20 3a ff
fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 01
ff 02 00 00 00 00 00 00 00 00 00 01 ff 00 00 0a
87 00 7c ef 00 00 00 00
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 0a
01 01 02 00 00 00 00 01
`

const goldenRS = `
33 33 00 00 00 02 02 00 00 00 00 0a 86 dd
60 00 00 00 00 10 3a ff
fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 0a
ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 02
85 00 7b 1a 00 00 00 00  // router solicitation
01 01 02 00 00 00 00 0a
`

const goldenRA = `
33 33 00 00 00 01 02 00 00 00 00 01 86 dd
60 00 00 00 00 58 3a ff
fe 80 00 00 00 00 00 00 00 00 00 ff fe 00 00 01
ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
86 00 aa 6b 40 00 07 08  // router advertisement, hop limit 64, router for 1800 s
00 00 00 00 00 00 00 00
01 01 02 00 00 00 00 01  // source link-layer address
05 01 00 00 00 00 05 78  // MTU 1400
03 04 40 c0              // prefix of 64 bits, on link, autonomous
00 00 15 18 00 00 0a 8c 00 00 00 00  // valid 5400 s, preferred 2700 s
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 00
19 03 00 00 00 00 07 08  // DNS for 1800 s
fd 00 00 18 00 00 00 00 00 00 00 00 00 00 00 53
`

const goldenDiscover = `
ff ff ff ff ff ff 02 00 00 00 00 0a 08 00
45 00 01 48 00 00 40 00 40 11 39 a6 00 00 00 00 ff ff ff ff
00 44 00 43 01 34 21 16  // port 68 to 67
01 01 06 00 39 03 f3 26  // request, Ethernet, transaction
00 00 00 00              // no broadcast flag
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
02 00 00 00 00 0a 00 00 00 00 00 00 00 00 00 00
` + zeros192 + `
63 82 53 63              // cookie
35 01 01                 // discover
3d 07 01 02 00 00 00 00 0a  // client identifier
32 04 c6 12 00 4d        // wishes 198.18.0.77
37 05 01 03 06 1a 79     // wants mask, router, DNS, MTU, routes
ff
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
`

const goldenOffer = `
02 00 00 00 00 0a 02 00 00 00 00 01 08 00
45 00 01 56 00 00 40 00 40 11 ad 24 c6 12 00 01 c6 12 00 4d
00 43 00 44 01 42 2a 7f
02 01 06 00 39 03 f3 26 00 00 00 00
00 00 00 00 c6 12 00 4d  // your address
00 00 00 00 00 00 00 00
02 00 00 00 00 0a 00 00 00 00 00 00 00 00 00 00
` + zeros192 + `
63 82 53 63
01 04 ff ff ff 00        // mask
03 04 c6 12 00 01        // router
06 04 c6 12 00 35        // DNS
1a 02 05 78              // MTU 1400
33 04 00 00 0e 10        // for an hour
35 01 02                 // offer
36 04 c6 12 00 01        // server
3a 04 00 00 07 08        // renew after 1800 s
3b 04 00 00 0c 4e        // rebind after 3150 s
3d 07 01 02 00 00 00 00 0a
79 0d 00 c6 12 00 01     // default route
18 cb 00 71 c6 12 00 09  // 203.0.113.0/24 via 198.18.0.9
ff
`

const (
	zeros32  = "00000000000000000000000000000000 00000000000000000000000000000000 "
	zeros192 = zeros32 + zeros32 + zeros32 + zeros32 + zeros32 + zeros32
)
