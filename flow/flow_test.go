package flow_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/flow"
)

func TestID(t *testing.T) {
	if got := flow.Protocol(132).String(); got != "132" {
		t.Errorf("protocol 132 is called %q", got)
	}
	for _, tc := range []struct {
		id   flow.ID
		want string
	}{
		{flow.ID{Protocol: flow.TCP, Client: netip.MustParseAddrPort("198.18.0.1:40000"), Destination: netip.MustParseAddrPort("192.0.2.1:80")}, "tcp 198.18.0.1:40000 > 192.0.2.1:80"},
		{flow.ID{Protocol: flow.UDP, Client: netip.MustParseAddrPort("[fd00:18::1]:5"), Destination: netip.MustParseAddrPort("[2001:db8::1]:53")}, "udp [fd00:18::1]:5 > [2001:db8::1]:53"},
	} {
		if got := tc.id.String(); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// TestCloseReasons: reasons are metric labels, so each needs a word of its own.
func TestCloseReasons(t *testing.T) {
	seen := map[string]bool{"unknown": true}
	for _, r := range flow.CloseReasons() {
		if seen[r.String()] {
			t.Errorf("reason %d is called %q, like another", r, r)
		}
		seen[r.String()] = true
	}
	if got := flow.CloseReason(len(flow.CloseReasons())).String(); got != "unknown" {
		t.Errorf("the first number past the reasons is %q", got)
	}
}

func TestErrors(t *testing.T) {
	id := flow.ID{Protocol: flow.TCP, Client: netip.MustParseAddrPort("198.18.0.1:1"), Destination: netip.MustParseAddrPort("192.0.2.1:2")}
	err := fmt.Errorf("relay: %w", &flow.Error{Op: "read", ID: id, Err: unix.ECONNRESET})
	if !errors.Is(err, unix.ECONNRESET) || flow.ErrnoOf(err) != unix.ECONNRESET {
		t.Errorf("%v does not unwrap to ECONNRESET", err)
	}
	if want := "relay: read tcp 198.18.0.1:1 > 192.0.2.1:2: connection reset by peer"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if err := fmt.Errorf("read: %w", flow.ErrWouldBlock); !errors.Is(err, unix.EAGAIN) || flow.ErrnoOf(err) != unix.EAGAIN {
		t.Error("ErrWouldBlock is not EAGAIN")
	}
	if e := flow.ErrnoOf(net.ErrClosed); e != 0 {
		t.Errorf("net.ErrClosed has errno %v", e)
	}
}
