package netstack_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/refs"
)

// TestMain fails the binary for a goroutine or a packet buffer that outlives it.
func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	if what := leakedPackets(); what != "" {
		println(what)
		code = 1
	}
	os.Exit(code)
}

// leakedPackets lists what nobody released, "" if that is nothing, or nothing but the
// segments that a gVisor endpoint of broken end had received out of order
// (cleanupLocked leaves them, with a packet each, to the garbage collector).
func leakedPackets() (what string) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		what = fmt.Sprint(r)
		segments := strings.Count(what, "[tcp.segment ")
		if segments > 0 && strings.Count(what, "[stack.PacketBuffer ") <= segments {
			what = ""
		}
	}()
	refs.DoRepeatedLeakCheck()
	return ""
}
