// Package minisock keeps the states of a TCP connection that need no endpoint in a
// stack: before the handshake is done, and after both sides have closed. It stands
// between the device and the stack, sees each TCP packet of both directions, and is
// named for what Linux does in the same place. It is pure: no descriptor, no
// goroutine, no clock and no stack; packets in, packets and verdicts out.
//
// # Theory of operation
//
// A connection is a record of 128 bytes, without pointers, from its SYN to the end of
// TIME_WAIT:
//
//	      SYN (DialFirst)         Answer
//	Free ----------------> Dialing -----> SynReceived      10 s at most, SYN-ACK
//	Free --------------------------------> SynReceived     sent at 0, 1, 3, 7 s
//	      SYN (DialAfter)                   |
//	Free ---------------------------------> | final ACK, or first data
//	      ACK with a valid cookie           v
//	                                     Creating          an endpoint is made
//	                                        | Establish, Ready
//	                                        v
//	                    Established, CloseWait, FinWait1, FinWait2, Closing, LastAck
//	                                        | FINs through both ways
//	                                        v
//	                                 TimeWait (60 s) or Linger (1 s)
//
// The endpoint comes from an active open towards the client: the owner binds the
// destination, connects to the client, and this package swallows the stack's SYN
// ([Table.Outbound]) and answers it in the client's name ([Table.Establish]). The
// client's own sequence numbers are used for that, so they never change. The stack's
// are others than those that the client was promised, and so are its timestamps: from
// then on two constants are added to each header, as netfilter's SYNPROXY does:
//
//	inbound    ACK, SACK blocks  - seqD    TSecr - tsD
//	outbound   SEQ               + seqD    TSval + tsD
//
// In place, and modulo 2^32. A full checksum is changed by the difference of the
// words (RFC 1624); a partial one covers no header byte.
//
// Inbound, in this order ([Table.Inbound]):
//
//  1. Flags that no TCP sends together are dropped.
//  2. The flow's record is looked up, and its shard locked.
//  3. Connections with an endpoint are guarded. SYNs, RSTs that are not exact and
//     ACKs of what was not sent get a challenge ACK (RFC 5961), segments with an old
//     timestamp an ACK (PAWS, RFC 7323). What is sound is noted, translated, passed.
//  4. Other states are served from the record.
//  5. Without a record, a SYN opens a flow, an ACK may carry a cookie, and the rest
//     is answered with RST.
//
// # Handshakes
//
// Half-open connections are bounded: in all ([Options].Backlog), for a source (an
// IPv4 address, an IPv6 /64) and for a destination. Past a bound a SYN is answered
// with a cookie, dropped, or reset. A cookie keeps nothing here: segment size in the
// sequence number, window scale and SACK in the timestamp.
//
// In mode [DialFirst] a SYN is not answered before its owner has the upstream; what
// overflows is answered with cookies all the same, or a flood would shut everybody
// out, and then the upstream is dialled after the handshake.
//
// A cookie costs as much as all else about a SYN, mostly by its write. While packets
// come faster than they are served ([Segment].Pressed) the device drops whatever it
// has no room for, segments of connections too, so cookies are spared until it has
// run empty, past the first 20,000 a second. Sources that have finished a handshake
// lately have theirs all the same, 5000 a second each; others one in 100 ms each,
// 50,000 a second together. Who is spared hears nothing, and tries again in a second.
//
// Likewise a RST that ends a connection can be put off ([Segment].Later): the caller
// keeps it, and shows it again when the device has run empty.
//
// # While an endpoint is made
//
// Packets from the client are [Hold]: the caller keeps them, 64 a flow at most, and
// gives them to [Table.Resume], in their order, once Establish has been called and
// the stack has the SYN-ACK. [Table.Ready] opens the way when none is left. A packet
// of the stack that comes before Establish is swallowed.
//
// # The end
//
// FINs are followed both ways. When both are acknowledged the record leaves the
// endpoint ([Result].Gone) and answers alone: TIME_WAIT if ours was first, and a
// second of Linger if the client's was, or what is late would draw a RST. A new SYN
// takes the tuple at once if it is newer by timestamp (RFC 6191) or sequence number
// (RFC 1122); a RST does not end TIME_WAIT (RFC 1337).
//
// An endpoint whose application is gone can go earlier, once its FIN is sent and all
// before it acknowledged: [Table.Orphan]. The record then waits for the client's FIN,
// or repeats ours, within bounds of time and number.
//
// # Losses
//
// Retransmission is the stack's. Two faults of gVisor's are made up for from outside,
// since a record sees both sides: a flow that lost something lately shows it each
// segment's ACK by itself (lossy.go), and one whose stack has forgotten to send again is
// made to ([Table.Stalled]).
//
// # Silent clients
//
// A client that has been silent for [Options].KeepaliveIdle, and owes no
// acknowledgement, is probed: an ACK one below what it expects, with the record's
// numbers, window and timestamps, which its TCP answers (RFC 1122, section 4.2.3.6;
// Linux's tcp_keepalive_timer). In FIN_WAIT_1, CLOSING and LAST_ACK our FIN is
// unacknowledged, and the stack's retransmissions find out, as they do for data,
// or are made to ([Table.Stalled]); whoever acknowledges nothing for
// [Options].Unacknowledged all the same is ended. An orphan has timers of its own.
// Whatever sound the client sends counts as an answer. After KeepaliveCount probes with
// an interval of silence behind each, it gets a RST, the record goes, and the owner
// hears of it ([Sink].Ended). Probes that were sent before the process stood still do
// not count, since nobody was there to hear.
//
// [Table.Probe] walks through the table for that, a bucket at a time, once in an
// eighth of an interval, but never through more than 100,000 records a second: some 40
// ns each, so with a million of them, probed after 10 minutes and 75 s, it takes 4
// ms of each second. The shard is locked for a bucket, 2 us. There are as many probes a
// second as ask all within an interval, and a quarter more, but 100 at least and 40,000
// at most; where that is not enough the walk waits. So a million clients that fell
// silent at once are asked evenly, within 60 s, and one is given up later rather than
// without its probes.
//
// [Table.EndIdle] walks too, and ends those who have been silent for longest, for an
// owner that is short of memory. Answers to probes do not make a client busy there.
//
// # Limits on what others can provoke
//
// Challenge ACKs and the like: one in 500 ms for a flow, 1000 a second in all. RSTs
// to no flow: 1000 a second, an eighth of that for a source. All are counted by
// [Cause], and so is everything else: a packet costs a counter, never a log line.
//
// # What the owner must do
//
// Show every TCP packet of both directions to the table, and nothing twice. Keep
// [Options].Local true to what the stack announces, and let the stack offer SACK and
// timestamps. Call [Table.Tick] and [Table.Probe] when they are due. End what it was
// given: a Dial by Answer, Refuse or Drop, a Create by Ready or Fail (there are timers
// for the forgotten, and [Sink].Gone). Call [Table.Release] for a connection whose
// endpoint died without a packet, or its record stays for ever. Let an endpoint go when
// Result.Gone says so and what it received was read, and end it when [Sink].Ended does.
//
// Of several readers, one may be making a flow's endpoint while another is told to
// Hold a packet of it. Ready is then false until that packet has come to Resume too.
//
// # Memory and locks
//
// Records live in slabs of 64 without pointers, so that the garbage collector does
// not look at them; a slab that has emptied is given back. A shard's index finds them
// by a seeded hash: extendible hashing, which grows and shrinks by a bucket of 512
// bytes at a time. All in all a record costs 150 bytes or so at every size.
//
// A shard's lock is the lock of its flows, and is held for well under a microsecond,
// by a walk for two.
// The arena's lock comes after it; there is no other order. Nothing of the caller's is
// called with a lock held, and [Table.Outbound] calls nothing at all, so it may run
// under a stack's locks; the caller must not hold any of those where it calls
// another method, if its [Sink] needs them.
//
// Timers are lists in the records, one for each length of a wait, so the first to
// end is the first in its list. [Table.Next] says when [Table.Tick] is due. No
// established connection has a timer: its words hold what keepalive has to remember.
package minisock
