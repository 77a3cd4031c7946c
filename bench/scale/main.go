package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// options are the flags.
type options struct {
	n         int
	hold      time.Duration
	settle    time.Duration
	ends      []string
	reopen    bool
	openers   int
	window    int
	keepalive []string
	bin       string
	queue     int
	nice      int
	out       string
	profile   string
}

func main() {
	var o options
	role := flag.String("role", "", "what to be inside the namespace (used by scale itself)")
	first := flag.Int("first", 0, "role clients: number of the first connection")
	ends := flag.String("ends", "reset,fin,silent", "how the connections end, one after another, comma separated")
	keepalive := flag.String("keepalive", "60s,15s,9", "the gateway's keepalive towards clients: idle, interval, count")
	flag.IntVar(&o.n, "n", 1_000_000, "connections")
	flag.DurationVar(&o.hold, "hold", time.Minute, "how long they are held, 1 % of them active each second")
	flag.DurationVar(&o.settle, "settle", time.Minute, "how long the gateway's memory may take to come back")
	flag.BoolVar(&o.reopen, "reopen", true, "open all again after the last end too, not only before the next")
	flag.IntVar(&o.openers, "openers", 2, "processes that open connections at once")
	flag.IntVar(&o.window, "window", 128, "connects under way in each")
	flag.IntVar(&o.nice, "nice", -20, "the gateway's nice value, before its clients as deploy/tungate.service has it; 0 is beside them")
	flag.StringVar(&o.bin, "bin", "", "a gateway already built; empty builds ./cmd/gateway")
	flag.IntVar(&o.queue, "txqueuelen", 0, "packets a queue of the device holds before the kernel drops; 0 leaves what the gateway made")
	flag.StringVar(&o.out, "out", "", "write scale.csv and scale.svg to this folder")
	flag.StringVar(&o.profile, "profile", "", "write CPU and heap profiles of the gateway to PREFIX-WHEN.pprof")
	flag.Parse()
	o.ends = strings.FieldsFunc(*ends, func(r rune) bool { return r == ',' })
	o.keepalive = strings.Split(*keepalive, ",")

	var err error
	switch *role {
	case "clients":
		err = runClients(o.n, *first, destinations())
	case "probe":
		err = runProbe(probeAddr, destinations())
	default:
		err = o.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// probeAddr is where fresh connections come from, so that what silences the others
// leaves them alone.
var probeAddr = netip.MustParseAddr("198.18.0.2")

// destinations are 250 addresses behind the device.
func destinations() []netip.AddrPort {
	var to []netip.AddrPort
	for i := range 250 {
		to = append(to, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(1 + i)}), 7))
	}
	return to
}

// run is one run: see the package's documentation.
type run struct {
	options
	dir, self string
	lab       *testutil.Lab
	gw        *testutil.Gateway
	fleet     *fleet
	watch     *watch
	prober    *testutil.Process
	start     sample // before the first connection
	points    []point
	rows      []row // what the phases came to
	goals     []goal
	stop      atomic.Bool
}

func (o options) run() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; run it as root")
	}
	if len(o.keepalive) != 3 {
		return errors.New("-keepalive: want three values, such as 60s,5s,3")
	}
	for _, e := range o.ends {
		if !slices.Contains([]string{"reset", "fin", "silent"}, e) {
			return fmt.Errorf("-ends: %q is not reset, fin or silent", e)
		}
	}
	if err := testutil.Sweep(); err != nil {
		return err
	}
	r := &run{options: o}
	if r.self, err = os.Executable(); err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "tungate-scale-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.dir) }()
	if r.lab, err = testutil.NewLab(); err != nil {
		return err
	}
	defer func() { _ = r.lab.Close() }()
	if err := r.setUp(); err != nil {
		return err
	}
	defer func() {
		r.fleet.close()
		_ = r.gw.Stop(30 * time.Second)
		_, kerr := r.lab.Client.KillAll()
		err = errors.Join(err, kerr)
	}()
	err = r.phases()
	r.prober.Kill()
	r.report(os.Stdout)
	if o.out != "" && len(r.points) > 0 {
		err = errors.Join(err, r.draw())
	}
	return err
}

// enoughMemory refuses a run that would drive the machine out of memory: a
// connection takes some 6.5 KB of the gateway, up to twice that between two garbage
// collections, and 4 KB of the kernel.
func enoughMemory(n int64) error {
	const each = 16 << 10
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	var kb int64
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		return fmt.Errorf("/proc/meminfo: %w", err)
	}
	if kb<<10 < n*each {
		return fmt.Errorf("%d connections may need %s, and %s are free: choose fewer by -n", n, size(n*each), size(kb<<10))
	}
	return nil
}

// setUp starts the gateway, the clients' processes and the prober.
func (r *run) setUp() error {
	client := r.lab.Client
	if err := enoughMemory(int64(r.n)); err != nil {
		return err
	}
	if err := client.Sysctl("ipv4/ip_local_port_range", "1024 65535"); err != nil {
		return err
	}
	if err := client.Sysctl("ipv4/tcp_tw_reuse", "1"); err != nil {
		return err
	}
	root, err := testutil.RepoRoot()
	if err != nil {
		return err
	}
	if r.bin == "" {
		r.bin = filepath.Join(r.dir, "gateway")
		if err := testutil.BuildGateway(r.bin, false); err != nil {
			return err
		}
	}
	config, err := testutil.EditConfig(filepath.Join(root, "examples/echo.yaml"), r.dir, map[string]any{
		"stack.max_connections":        max(r.n+r.n/10, 1_000_000),
		"stack.tcp.keepalive_idle":     r.keepalive[0],
		"stack.tcp.keepalive_interval": r.keepalive[1],
		"stack.tcp.keepalive_count":    r.keepalive[2],
		"admin.pprof":                  r.profile != "",
	})
	if err != nil {
		return err
	}
	if r.gw, err = testutil.StartGateway(client, r.bin, config, testutil.Nice(r.nice)); err != nil {
		return err
	}
	if err := client.IP(fmt.Sprintf("addr add %s/32 dev %s", probeAddr, testutil.TunName)); err != nil {
		return err
	}
	if r.queue > 0 {
		if err := client.IP(fmt.Sprintf("link set %s txqueuelen %d", testutil.TunName, r.queue)); err != nil {
			return err
		}
	}
	r.fleet = &fleet{ns: client, self: r.self}
	for first := 0; first < r.n; first += perProcess {
		if err := r.fleet.add(min(perProcess, r.n-first), first); err != nil {
			return err
		}
	}
	r.watch = &watch{ns: client, gw: r.gw, fleet: r.fleet, begun: time.Now(), phase: "start", probes: map[string][]probe{}}
	testutil.OnInterrupt(&r.stop)
	return r.startProber()
}

func (r *run) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  "+format+"\n", append([]any{time.Since(r.watch.begun).Seconds()}, args...)...)
}
