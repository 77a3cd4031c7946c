package minisock

// Cause is why something happened, and what is counted.
type Cause uint8

// The causes. Those of a drop are in Result.Cause as well.
const (
	None Cause = iota

	// Packets that no connection may send.
	Malformed // no TCP header where there should be one
	OddFlags  // null, xmas, SYN+FIN, SYN+RST ... (RFC 9293 knows none of them)

	// Handshakes.
	SYN              // new flows seen
	SYNAdmitted      // of these: given a record
	SYNDuplicate     // retransmitted SYNs
	SYNAckSent       // first ones
	SYNAckAgain      // by the timer or for a duplicate SYN
	SYNLimited       // duplicates that came too fast to be answered
	SYNChallenged    // another SYN in a handshake, answered with an ACK
	SYNRefusing      // new flows while Refusing
	BacklogFull      // new flows past Options.Backlog
	SourceShare      // new flows past Options.PerSource
	DestinationShare // new flows past Options.PerDestination
	TableFull        // new flows past Options.MaxRecords
	SYNSpared        // new flows without a cookie, since packets come faster than they are served
	SYNProven        // new flows with one all the same: their sources had finished a handshake before
	HalfOpenReset    // ended by the client's RST
	HalfOpenRefused  // ended by an ICMP error
	HalfOpenExpired  // never finished
	HandshakeBadACK  // an ACK of what was not sent
	HandshakePAWS    // an ACK with an old timestamp, or out of the window
	Deferred         // bare ACKs while data is waited for
	Answered         // Dialing ended by Answer
	Refused          // by Refuse
	DialDropped      // by Drop
	DialExpired      // by the client's or the owner's silence

	// SYN cookies.
	CookieSent
	CookieAccepted
	CookieRejected

	// Endpoints being made.
	HeldPacket    // kept until the endpoint stands
	HeldFull      // too many of these
	CreateFailed  // ended by Fail
	CreateExpired // never became Ready

	// Connections.
	ChallengedSYN    // SYN on a connection (RFC 5961, section 4)
	ChallengedRST    // RST in the window, not exact (section 3)
	ChallengedACK    // ACK of what was not sent or long ago (section 5)
	ChallengeLimited // any of these, unanswered by the limits
	OldTimestamp     // PAWS (RFC 7323, section 5)
	StrayRST         // RST outside of the window
	ResetIn          // ended by the client's RST
	ResetLater       // such RSTs that were put off
	ResetOut         // ended by the stack's RST
	OldResetOut      // RST of an earlier incarnation, kept in
	NoFlow           // outbound segment of no flow
	NotLive          // outbound segment before the endpoint stands
	Late             // outbound segment of an endpoint that is gone
	SwallowedSYN     // the stack's SYN
	SwallowedACK     // its ACK of the synthetic SYN-ACK
	DelayedACK       // the stack's ACK of little data, which may go with data
	DelayInVain      // of these: sent by Acknowledge, since no data came
	Nudged           // Stalled had the stack send again
	Released         // ended by Release
	ProbeSent        // to a silent client (RFC 1122, section 4.2.3.6)
	ClientSilent     // ended: none of the last probes was answered
	Unacked          // ended: Options.Unacknowledged has passed
	Shed             // ended by EndIdle

	// The end of connections.
	TimeWaitEntered
	TimeWaitReused  // taken by a new SYN
	TimeWaitStray   // segments answered with an ACK
	TimeWaitLimited // segments not answered
	TimeWaitQuiet   // segments that say nothing and want no answer
	TimeWaitReset   // RST that did not end it (RFC 1337)
	TimeWaitFull    // past Options.MaxTimeWait: no record was kept
	Orphaned
	OrphanFull    // past Options.MaxOrphans: reset
	OrphanData    // data for nobody: reset
	OrphanStray   // old segments and keepalives, answered with an ACK
	OrphanExpired // FIN_WAIT_2 or LAST_ACK given up
	FinAgain      // FINs sent again
	Expired       // TIME_WAIT and linger that ended in peace

	// Segments of no flow.
	UnknownReset   // answered with RST
	UnknownLimited // unanswered by the limits
	UnknownRST     // RST, which is never answered
	UnknownSYNAck  // SYN-ACK: nobody here asked

	// ICMP errors.
	ICMPPassed   // about what was really sent
	ICMPUnknown  // about no flow
	ICMPSequence // about what was not sent, or is acknowledged (RFC 5927)
	ICMPLowMTU   // packet too big below the least MTU
	NumCauses
)

var causeNames = [NumCauses]string{
	None: "none", Malformed: "malformed", OddFlags: "odd_flags",
	SYN: "syn", SYNAdmitted: "syn_admitted", SYNDuplicate: "syn_duplicate", SYNAckSent: "syn_ack_sent",
	SYNAckAgain: "syn_ack_again", SYNLimited: "syn_limited", SYNChallenged: "syn_challenged",
	SYNRefusing: "syn_refusing", BacklogFull: "backlog_full", SourceShare: "source_share",
	DestinationShare: "destination_share", TableFull: "table_full",
	SYNSpared: "syn_spared", SYNProven: "syn_proven", HalfOpenReset: "half_open_reset",
	HalfOpenRefused: "half_open_icmp", HalfOpenExpired: "half_open_expired", HandshakeBadACK: "handshake_bad_ack",
	HandshakePAWS: "handshake_window", Deferred: "deferred", Answered: "answered", Refused: "refused",
	DialDropped: "dial_dropped", DialExpired: "dial_expired",
	CookieSent: "cookie_sent", CookieAccepted: "cookie_accepted", CookieRejected: "cookie_rejected",
	HeldPacket: "held", HeldFull: "held_full", CreateFailed: "create_failed", CreateExpired: "create_expired",
	ChallengedSYN: "challenged_syn", ChallengedRST: "challenged_rst", ChallengedACK: "challenged_ack",
	ChallengeLimited: "challenge_limited", OldTimestamp: "paws", StrayRST: "stray_rst", ResetIn: "reset_in", ResetLater: "reset_later",
	ResetOut: "reset_out", OldResetOut: "old_reset_out", NoFlow: "no_flow", NotLive: "not_live", Late: "late",
	SwallowedSYN: "swallowed_syn", SwallowedACK: "swallowed_ack", DelayedACK: "delayed_ack", DelayInVain: "delay_in_vain",
	Nudged: "nudged", Released: "released",
	ProbeSent: "probe_sent", ClientSilent: "client_silent", Unacked: "unacknowledged", Shed: "shed",
	TimeWaitEntered: "time_wait", TimeWaitReused: "time_wait_reused", TimeWaitStray: "time_wait_stray",
	TimeWaitLimited: "time_wait_limited", TimeWaitQuiet: "time_wait_quiet", TimeWaitReset: "time_wait_reset", TimeWaitFull: "time_wait_full",
	Orphaned: "orphaned", OrphanFull: "orphan_full", OrphanData: "orphan_data", OrphanStray: "orphan_stray", OrphanExpired: "orphan_expired",
	FinAgain: "fin_again", Expired: "expired",
	UnknownReset: "unknown_reset", UnknownLimited: "unknown_limited", UnknownRST: "unknown_rst",
	UnknownSYNAck: "unknown_syn_ack",
	ICMPPassed:    "icmp_passed", ICMPUnknown: "icmp_unknown", ICMPSequence: "icmp_sequence", ICMPLowMTU: "icmp_low_mtu",
}

// String returns the metric label.
func (c Cause) String() string {
	if c < NumCauses {
		return causeNames[c]
	}
	return "unknown"
}
