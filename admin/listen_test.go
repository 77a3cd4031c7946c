package admin

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestValidate(t *testing.T) {
	for listen, want := range map[string]string{
		"":                                  "",
		"off":                               "",
		"127.0.0.1:9090":                    "",
		"localhost:9090":                    "",
		"[::1]:0":                           "",
		"0.0.0.0:65535":                     "",
		"unix:/run/tungate.sock":            "",
		"9090":                              `listen: "9090" is not an address with a port; use one such as 127.0.0.1:9090, or unix:/run/tungate.sock`,
		":9090":                             `listen: ":9090" names no address; write 127.0.0.1:9090 for this host alone, or [::]:9090 for everybody`,
		"127.0.0.1:70000":                   `listen: "127.0.0.1:70000" has no port from 0 to 65535; use an address such as 127.0.0.1:9090`,
		"127.0.0.1:http":                    `listen: "127.0.0.1:http" has no port from 0 to 65535; use an address such as 127.0.0.1:9090`,
		"gateway.example:9090":              `listen: "gateway.example:9090" is not a numeric address; use one such as 127.0.0.1:9090`,
		"unix:run/x":                        `listen: "unix:run/x" needs an absolute path after unix:, such as unix:/run/tungate.sock`,
		"unix:@abstract":                    `listen: "unix:@abstract" needs an absolute path after unix:, such as unix:/run/tungate.sock`,
		"unix:/" + strings.Repeat("x", 107): "listen: the path is 108 bytes long, and the kernel takes 107; use a shorter one",
		"unix:/a\x00b":                      "listen: the path holds a NUL byte",
	} {
		got := ""
		if err := (&Options{Listen: listen}).Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", listen, got, want)
		}
	}
}

func TestNewRefusesWhatValidateDoes(t *testing.T) {
	if _, err := New(Options{Listen: "9090"}, Deps{}); err == nil || !strings.HasPrefix(err.Error(), "admin.listen: ") {
		t.Errorf("New: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	first := run(t, Options{}, Deps{})
	addr := first.Addr().String()
	_, err := New(Options{Listen: addr}, Deps{})
	want := "admin.listen: " + addr + ": another program listens there; stop it, or set admin.listen to another port (address already in use)"
	if err == nil || err.Error() != want || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("New:\n got %v\nwant %s", err, want)
	}
}

func TestAddressNotHere(t *testing.T) {
	_, err := New(Options{Listen: "192.0.2.1:9090"}, Deps{})
	const want = "admin.listen: 192.0.2.1:9090: no interface of this host has the address; use one that it has, such as 127.0.0.1:9090 (cannot assign requested address)"
	if err == nil || err.Error() != want {
		t.Errorf("New:\n got %v\nwant %s", err, want)
	}
}

func TestExplain(t *testing.T) {
	at := endpoint{path: "/x"}
	for _, test := range []struct {
		got  error
		want string
	}{
		{explainTCP(at, unix.EACCES), "admin.listen: unix:/x: a port below 1024 needs CAP_NET_BIND_SERVICE; use a higher one (permission denied)"},
		{explainTCP(at, unix.ENOBUFS), "admin.listen: unix:/x: use another address or port (no buffer space available)"},
		{explainUnix("/x", unix.ENOENT), "admin.listen: unix:/x: its directory does not exist; create it, or use another path (no such file or directory)"},
		{explainUnix("/x", unix.EROFS), "admin.listen: unix:/x: its directory is not writable; use one that is (read-only file system)"},
		{explainUnix("/x", errBroken), "admin.listen: unix:/x: use another path (broken)"},
	} {
		if test.got.Error() != test.want {
			t.Errorf("\n got %v\nwant %s", test.got, test.want)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := run(t, Options{Listen: "unix:" + path}, Deps{})
	if got := r.ask(t, "GET", "/healthz", host("any.example")); got.status != http.StatusOK {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|socketMode {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if r.Addr().String() != path {
		t.Errorf("Addr: %v", r.Addr())
	}

	_, err = New(Options{Listen: "unix:" + path}, Deps{})
	want := "admin.listen: unix:" + path + ": another program listens on this socket; stop it, or use another path"
	if err == nil || err.Error() != want {
		t.Errorf("a second server:\n got %v\nwant %s", err, want)
	}

	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a killed program leaves it
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := run(t, Options{Listen: "unix:" + path}, Deps{}).ask(t, "GET", "/readyz", nil); got.status != http.StatusOK {
		t.Errorf("status %d", got.status)
	}
}

func TestOtherFilesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Options{Listen: "unix:" + path}, Deps{})
	want := "admin.listen: unix:" + path + ": a file that is no socket has this name; remove it, or use another path"
	if err == nil || err.Error() != want {
		t.Errorf("New:\n got %v\nwant %s", err, want)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// TestCloseLeavesASuccessorsSocket has another server take the name while the
// first still runs.
func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := run(t, Options{Listen: "unix:" + path}, Deps{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := run(t, Options{Listen: "unix:" + path}, Deps{})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if got := second.ask(t, "GET", "/healthz", nil); got.status != http.StatusOK {
		t.Errorf("status %d", got.status)
	}
}

func TestUnixDirectoryMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "s")
	_, err := New(Options{Listen: "unix:" + path}, Deps{})
	want := "admin.listen: unix:" + path + ": its directory does not exist; create it, or use another path (no such file or directory)"
	if err == nil || err.Error() != want {
		t.Errorf("New:\n got %v\nwant %s", err, want)
	}
}

// TestDatagramSocketIsKept: a live socket of another type refuses the probe in
// its own way, and is not ours to remove.
func TestDatagramSocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := New(Options{Listen: "unix:" + path}, Deps{}); !errors.Is(err, unix.EPROTOTYPE) {
		t.Errorf("New: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket was removed: %v", err)
	}
}
