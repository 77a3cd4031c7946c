package tundev_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/tundev"
)

// TestCutDownKernel: what a kernel lacks is gone without where the config says auto,
// and an error where it insists.
func TestCutDownKernel(t *testing.T) {
	ns := namespace(t)
	off := tundev.Offload{VnetHdr: tundev.Off}
	for _, c := range []struct {
		name    string
		o       tundev.Options
		refused uint16
		queues  int // 0: an error
		hdr     bool
		note    string
	}{
		{"one queue", tundev.Options{}, mqFlag, 1, true, "multi_queue"},
		{"no header", tundev.Options{Queues: 2}, hdrFlag, 2, false, "vnet_hdr"},
		{"neither", tundev.Options{Kind: tundev.TAP}, mqFlag | hdrFlag, 1, false, "multi_queue and vnet_hdr"},
		{"header off", tundev.Options{Queues: 2, Offload: off}, hdrFlag, 2, false, ""},
		{"two queues or nothing", tundev.Options{Queues: 2}, mqFlag, 0, false, ""},
		{"header or nothing", tundev.Options{Queues: 1, Offload: tundev.Offload{VnetHdr: tundev.On}}, hdrFlag, 0, false, ""},
	} {
		if c.o.Queues == 0 && c.queues == 1 && runtime.GOMAXPROCS(0) == 1 {
			continue // one processor asks for one queue
		}
		err := ns.Do(func() error {
			c.o.Name, c.o.MTU = "dev%d", 1500
			d, err := tundev.OpenWithout(c.o, c.refused)
			if err != nil {
				if c.queues != 0 || !errors.Is(err, unix.EINVAL) {
					t.Errorf("%s: %v", c.name, err)
				}
				return nil
			}
			if len(d.Queues()) != c.queues || d.Features().VnetHdr != c.hdr || c.note != strings.Join(d.Notes(), "") && !strings.Contains(d.Notes()[0], "refuses "+c.note+" (") {
				t.Errorf("%s: %d queues, %+v, notes %q", c.name, len(d.Queues()), d.Features(), d.Notes())
			}
			return d.Close()
		})
		if err != nil {
			t.Error(err)
		}
	}
}
