package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// fileSize is what curl carries each way.
const fileSize = 200 << 20

// makeFile writes a file of the seed's pattern and returns its path and sha256.
func makeFile(t *testing.T, seed uint64, size int64) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if err := send(io.MultiWriter(f, h), seed, size); err != nil {
		t.Fatal(err)
	}
	return path, hex.EncodeToString(h.Sum(nil))
}

// serveHTTP serves a handler in a namespace and returns its URL.
func serveHTTP(t *testing.T, n *testutil.Namespace, addr netip.AddrPort, h http.Handler) string {
	t.Helper()
	l, err := n.Listen(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: long}
	done := background(func() error { return s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// fileServer serves a file at / and answers an upload with its sha256.
func fileServer(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.ServeFile(w, r, path)
			return
		}
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, hex.EncodeToString(h.Sum(nil)))
	})
}

// TestCurl carries a file of 200 MB down and up.
func TestCurl(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	path, sum := makeFile(t, 1, fileSize)
	curl := func(t *testing.T, script, url string) {
		t.Helper()
		out, stderr, err := lab.Client.Run(2*time.Minute, exec.Command("bash", "-c", "set -o pipefail; "+script, "bash", url, path))
		if err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if got, _, _ := strings.Cut(out, " "); got != sum {
			t.Errorf("sha256 %s, want %s: %s", got, sum, stderr)
		}
	}
	eachFamily(t, func(t *testing.T, f family) {
		url := serveHTTP(t, lab.Server, netip.AddrPortFrom(f.server, 0), fileServer(path)) + "/file"
		t.Run("down", func(t *testing.T) {
			curl(t, `curl -sSfg --max-time 100 "$1" | sha256sum`, url)
		})
		t.Run("up", func(t *testing.T) { curl(t, `curl -sSfg --max-time 100 -T "$2" "$1"`, url) })
	})
}

// TestIPerf runs iperf3 both ways and looks that nearly all of it travelled in
// superframes.
func TestIPerf(t *testing.T) {
	const (
		share   = 0.95      // of the bytes in the bulk's direction
		minimum = 100 << 20 // of bytes a second, far below what a slow machine does
	)
	lab := newLab(t)
	gw := start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		for _, streams := range []string{"1", "4"} {
			for _, down := range []bool{false, true} {
				t.Run(fmt.Sprintf("streams=%s,down=%v", streams, down), func(t *testing.T) {
					before := gw.metrics(t)
					res, err := testutil.IPerf{
						Server: lab.Server, Client: lab.Client, Addr: f.server,
						Seconds: 1, Streams: streams, Down: down, Grace: long,
					}.Run()
					if err != nil {
						t.Fatal(err)
					}
					used := gw.metrics(t).Sub(before)
					if raceBuild() {
						return // no rate to speak of
					}
					if res.Bytes < minimum {
						t.Errorf("%.0f MB arrived in a second", res.Bytes/1e6)
					}
					if got := used.SuperframeShare(down); superframes(f) != (got >= share) {
						t.Errorf("%.1f %% of the bytes in superframes, want %.0f %%, or none without TSO", 100*got, 100*share)
					}
				})
			}
		}
	})
}

// TestUDPFlood sends datagrams at a rate that must not lose many.
func TestUDPFlood(t *testing.T) {
	lab := newLab(t)
	start(t, lab, "direct.yaml", nil)
	eachFamily(t, func(t *testing.T, f family) {
		conn, err := lab.Server.ListenPacket(netip.AddrPortFrom(f.server, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		const datagrams, size = 20_000, 1200
		got := background(func() error {
			deadline(t, conn, long)
			buf := make([]byte, 2*size)
			for n := range datagrams * 9 / 10 {
				if _, _, err := conn.ReadFromUDPAddrPort(buf); err != nil {
					return fmt.Errorf("after %d datagrams: %w", n, err)
				}
			}
			return nil
		})
		c, err := lab.Client.Dial("udp", conn.LocalAddr().String(), soon)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sendPaced(t, c, datagrams, size)
		if err := result(t, got, long); err != nil {
			t.Error(err)
		}
	})
}

// sendPaced sends datagrams in bursts, a millisecond apart: 50,000 a second.
func sendPaced(t *testing.T, c net.Conn, n, size int) {
	t.Helper()
	burst := 50
	if raceBuild() {
		burst = 5
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, size)
	for i := range n {
		if i%burst == burst-1 {
			<-tick.C
		}
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
}
