package tundev_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/tungate/tungate/tundev"
)

// newName is the name of a namespace that is not there yet.
func newName(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("tungate-%d-new", os.Getpid())
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return name
}

// TestCreateNetNS makes a namespace that ip-netns knows, once for all who ask at
// the same time, and leaves the test's own threads where they were.
func TestCreateNetNS(t *testing.T) {
	name := newName(t)
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			d, err := tundev.Create(tundev.Options{Name: fmt.Sprintf("tun%d", i), NetNS: name, CreateNetNS: true, Queues: 1})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = d.Close() })
		})
	}
	all.Wait()
	out, err := exec.Command("ip", "-n", name, "-o", "link").CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 7 {
		t.Errorf("%v: want lo and six devices, have\n%s", err, out)
	}
	if !strings.Contains(string(out), "LOOPBACK,UP") {
		t.Errorf("lo is down:\n%s", out)
	}
	if out, err := exec.Command("ip", "netns", "list").Output(); err != nil || !strings.Contains(string(out), name) {
		t.Errorf("%v: %s", err, out)
	}
	for range 20 { // whichever thread
		now, err := netns.Get()
		if err != nil || !now.Equal(home) {
			t.Errorf("in another namespace: %v, %v", now, err)
		}
		now.Close()
	}
}

// TestCreateNetNSErrors names what is in the way.
func TestCreateNetNSErrors(t *testing.T) {
	file := "/run/netns/" + fmt.Sprintf("tungate-%d-file", os.Getpid())
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file) })
	for where, want := range map[string]string{
		strings.TrimPrefix(file, "/run/netns/"): "ip netns del",
		"":                                      "needs a name",
		"/a/path":                               "no path",
		"123":                                   "no pid",
		"..":                                    "needs a name",
	} {
		noLeak(t, func() {
			_, err := tundev.Create(tundev.Options{NetNS: where, CreateNetNS: true})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v, want a sentence with %q", where, err, want)
			}
		})
	}
}
