package lan

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Constants of RFC 4861, section 10.
const (
	initialRAInterval = 16 * time.Second
	initialRAs        = 3
	minDelayBetween   = 3 * time.Second
	maxRADelay        = 500 * time.Millisecond
)

// raHopLimit is the hop limit guests are told to begin with (IANA's default).
const raHopLimit = 64

// slaacBits is the length of a network that guests make addresses in: what is left
// must be as long as an Ethernet interface identifier (RFC 4862, section 5.5.3;
// RFC 2464, section 4).
const slaacBits = 64

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// advertiser knows when the next router advertisement is due (section 6.2.4).
type advertiser struct {
	on       bool
	min, max time.Duration // between two unsolicited
	next     time.Duration // never if off
	last     time.Duration // valid iff sent
	sent     bool
	quick    int // how many more come soon after another
}

func (r *advertiser) init(o *RAOptions) {
	r.on, r.min, r.max = o.On, o.MinInterval, o.MaxInterval
	r.next = never
	r.begin(0)
}

// begin starts anew, as on an interface that becomes an advertising one (section
// 6.2.4), but not sooner after the last advertisement than two may follow.
func (r *advertiser) begin(now time.Duration) {
	if !r.on {
		return
	}
	r.quick = initialRAs - 1
	r.next = r.atLeast(now)
}

// solicited brings the next advertisement forward, since a guest asked for one:
// after a random delay, and 3 s after the last (section 6.2.6).
func (r *advertiser) solicited(now time.Duration) {
	if !r.on {
		return
	}
	r.next = min(r.next, r.atLeast(now+rand.N(maxRADelay)))
}

// atLeast is when one may be sent that is due at t.
func (r *advertiser) atLeast(t time.Duration) time.Duration {
	if !r.sent {
		return t
	}
	return max(t, r.last+minDelayBetween)
}

// sentAt notes an advertisement and chooses when the next is due: between min and
// max, but the first few soon (section 6.2.4).
func (r *advertiser) sentAt(now time.Duration) {
	r.sent, r.last = true, now
	wait := r.min + rand.N(r.max-r.min+1)
	if r.quick > 0 {
		r.quick--
		wait = min(wait, initialRAInterval)
	}
	r.next = now + wait
}

// advertise sends a router advertisement if one is due.
func (l *LAN) advertise(t *turn) {
	if !l.ra.on || t.now < l.ra.next {
		return
	}
	l.ra.sentAt(t.now)
	t.reply(l.routerAdvertisement(l.options.RA.RouterLifetime))
	l.count(EventRA, 1)
}

// routerAdvertisement builds the one message there is, but for the lifetime of the
// default route (section 4.2).
func (l *LAN) routerAdvertisement(lifetime time.Duration) []byte {
	networks := l.options.announced()
	dns := l.options.RA.DNS
	n := raLen + llaLen + 8 + 32*len(networks)
	if len(dns) > 0 {
		n += 8 + 16*len(dns)
	}
	frame, b := l.icmp6(l.linkLocal, allNodes(), groupMAC(allNodes()), n)
	b[0] = ndpRA
	b[4] = raHopLimit
	binary.BigEndian.PutUint16(b[6:], uint16(seconds(max(lifetime, 0)))) //nolint:gosec // at most 9000
	b = b[raLen:]
	putLLA(b, optSourceLLA, l.mac)
	b = b[llaLen:]
	b[0], b[1] = optMTU, 1
	binary.BigEndian.PutUint32(b[4:], uint32(l.options.MTU)) //nolint:gosec // at most 65,535
	b = b[8:]
	for _, p := range networks {
		putPrefix(b, p, &l.options.RA)
		b = b[32:]
	}
	if len(dns) > 0 {
		putRDNSS(b, dns, 3*l.options.RA.MaxInterval) // RFC 8106, section 5.1
	}
	sum6(frame)
	return frame
}

// announced lists the networks of the gateway's IPv6 addresses, each once.
func (o *Options) announced() []netip.Prefix {
	var networks []netip.Prefix
	for _, p := range o.Addresses {
		if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && !slices.Contains(networks, p.Masked()) {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

// putPrefix writes a prefix information option (section 4.6.2).
func putPrefix(b []byte, p netip.Prefix, o *RAOptions) {
	const onLink, autonomous = 0x80, 0x40
	b[0], b[1] = optPrefix, 4
	b[2] = byte(p.Bits()) //nolint:gosec // at most 128
	b[3] = onLink
	if p.Bits() == slaacBits {
		b[3] |= autonomous
	}
	binary.BigEndian.PutUint32(b[4:], seconds(o.ValidLifetime))
	binary.BigEndian.PutUint32(b[8:], seconds(o.PreferredLifetime))
	copy(b[16:], p.Addr().AsSlice())
}

// putRDNSS writes an option with DNS servers (RFC 8106, section 5.1).
func putRDNSS(b []byte, servers []netip.Addr, lifetime time.Duration) {
	b[0], b[1] = optRDNSS, byte(1+2*len(servers)) //nolint:gosec // Validate bounds them
	binary.BigEndian.PutUint32(b[4:], seconds(lifetime))
	for i, a := range servers {
		copy(b[8+16*i:], a.AsSlice())
	}
}

// seconds rounds up, so that no lifetime becomes zero, which would end it.
func seconds(d time.Duration) uint32 {
	return uint32((d + time.Second - 1) / time.Second) //nolint:gosec // Options bound it
}
