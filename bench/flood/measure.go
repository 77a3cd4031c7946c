package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

const echoPort = "7"

// echoTarget and echoTarget6 are addresses behind the device of examples/echo.yaml.
var (
	echoTarget  = netip.MustParseAddr("198.18.0.7")
	echoTarget6 = netip.MustParseAddr("fd00:18::7")
)

// target is whom the clients connect to, and the flood is for.
func target(k kind, echo bool) netip.Addr {
	switch {
	case echo && k.six:
		return echoTarget6
	case echo:
		return echoTarget
	case k.six:
		return testutil.ServerV6
	}
	return testutil.ServerV4
}

// result is what one flood came to.
type result struct {
	config           string
	flood            kind
	ok, failed       int
	firstErr         string
	p50, p99, worst  time.Duration
	echo99           time.Duration // of the connection that stood
	echoWorst        time.Duration
	echoErr          string
	slow             int   // clients that waited for as long as p99 may not be
	sent             int   // packets of the flood, by hping3's count
	entered          int   // packets that entered the gateway, clients' among them
	replies          int   // packets it sent, clients' among them
	before, peak     int64 // resident bytes
	after            int64
	cores            float64
	halfOpen, tables int // most half-open connections, most records
	left             int // records left in the end
	events           testutil.Series
}

// measure floods a fresh gateway in fresh namespaces.
func (b *bench) measure(config string, k kind) (r result, err error) {
	lab, err := testutil.NewLab()
	if err != nil {
		return r, err
	}
	defer func() { _ = lab.Close() }()
	defer func() {
		_, c := lab.Client.KillAll()
		_, s := lab.Server.KillAll()
		err = errors.Join(err, c, s)
	}()
	path := config
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.root, path)
	}
	gw, err := testutil.StartGateway(lab.Client, b.bin, path, testutil.Nice(b.nice))
	if err != nil {
		return r, err
	}
	echo := strings.Contains(filepath.Base(config), "echo")
	addr := target(k, echo)
	if !echo {
		if err := b.serve(lab, addr); err != nil {
			return r, err
		}
	}
	if b.queue > 0 {
		if err := lab.Client.IP(fmt.Sprintf("link set %s txqueuelen %d", testutil.TunName, b.queue)); err != nil {
			return r, err
		}
	}
	if err := spoof(lab.Client); err != nil {
		return r, err
	}
	if err := lab.Client.IP(fmt.Sprintf("route add local %v dev %s", strangerNet, testutil.TunName)); err != nil {
		return r, err
	}
	r.config, r.flood = filepath.Base(config), k
	m := &meter{gw: gw, lab: lab, result: &r}
	return r, b.flood(m, addr)
}

// serve starts the echo server and routes what is sent to it into the device.
func (b *bench) serve(lab *testutil.Lab, addr netip.Addr) error {
	if err := lab.RouteIntoDevice(); err != nil {
		return err
	}
	listen := net.JoinHostPort(addr.String(), echoPort)
	p, err := lab.Server.Start(exec.Command(b.self, "-role", "server", "-addr", listen))
	if err != nil {
		return err
	}
	return testutil.Poll(5*time.Second, func() error {
		if !p.Alive() {
			return fmt.Errorf("server: %s", p.Stderr)
		}
		c, err := lab.Server.Dial("tcp", listen, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// flood runs the flood and the clients, then waits for the tables to empty.
func (b *bench) flood(m *meter, addr netip.Addr) error {
	r := m.result
	if err := m.begin(); err != nil {
		return err
	}
	hping, err := r.flood.start(m.lab.Client, b.self, addr.String(), echoPort)
	if err != nil {
		return err
	}
	args := []string{
		"-role", "clients", "-addr", net.JoinHostPort(addr.String(), echoPort),
		"-clients", strconv.Itoa(b.clients), "-seconds", strconv.Itoa(b.seconds),
	}
	if r.flood.strangers {
		args = append(args, "-from", strangerNet.Addr().Next().String())
	}
	clients, err := m.lab.Client.Start(exec.Command(b.self, args...))
	if err != nil {
		return err
	}
	if err := m.until(clients.Done(), time.Duration(b.seconds)*time.Second+4*clientTimeout); err != nil {
		return err
	}
	if r.sent, err = stop(hping); err != nil {
		return err
	}
	var out outcome
	if err := json.Unmarshal([]byte(clients.Stdout.String()), &out); err != nil {
		return fmt.Errorf("clients: %w: %s", err, clients.Stderr)
	}
	r.take(out)
	return m.end(b.after)
}

// take sums the clients up.
func (r *result) take(out outcome) {
	times := make([]time.Duration, 0, len(out.Attempts))
	for _, a := range out.Attempts {
		times = append(times, a.Connect)
		if a.Connect >= goalP99 {
			r.slow++
		}
		if a.Err == "" {
			r.ok++
			continue
		}
		r.failed++
		if r.firstErr == "" {
			r.firstErr = a.Err
		}
	}
	slices.Sort(times)
	slices.Sort(out.Echoes)
	r.p50, r.p99, r.worst = at(times, 0.50), at(times, 0.99), at(times, 1)
	r.echo99, r.echoWorst, r.echoErr = at(out.Echoes, 0.99), at(out.Echoes, 1), out.EchoErr
}

// at is the value that a share of all are below.
func at(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// meter looks at the gateway during a flood.
type meter struct {
	gw     *testutil.Gateway
	lab    *testutil.Lab
	result *result
	start  time.Time
	cpu    time.Duration
	series testutil.Series
	rx, tx int // packets of the device, as the client's kernel counts them
}

func (m *meter) begin() (err error) {
	m.start = time.Now()
	if m.cpu, err = testutil.CPU(m.gw.PID); err != nil {
		return err
	}
	if m.result.before, err = testutil.RSS(m.gw.PID); err != nil {
		return err
	}
	if m.series, err = m.gw.Metrics(); err != nil {
		return err
	}
	m.rx, m.tx, err = m.packets()
	return err
}

// until samples until done is closed: memory ten times a second, tables each second.
func (m *meter) until(done <-chan struct{}, timeout time.Duration) error {
	r := m.result
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(timeout)
	for i := 1; ; i++ {
		select {
		case <-tick.C:
		case <-done:
			cpu, err := testutil.CPU(m.gw.PID)
			r.cores = (cpu - m.cpu).Seconds() / time.Since(m.start).Seconds()
			return errors.Join(err, m.tables())
		}
		rss, err := testutil.RSS(m.gw.PID)
		if err != nil {
			return fmt.Errorf("the gateway is gone: %w\n%s", err, m.gw.Log())
		}
		if r.peak = max(r.peak, rss); i%10 == 0 {
			if err := m.tables(); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return errors.New("the clients did not end")
		}
	}
}

// tables notes how full the gateway's tables are.
func (m *meter) tables() error {
	s, err := m.gw.Metrics()
	if err == nil {
		m.result.halfOpen = max(m.result.halfOpen, int(s["tungate_tcp_half_open"]))
		m.result.tables = max(m.result.tables, int(s["tungate_tcp_flow_records"]))
	}
	return err
}

// end counts packets, then waits and looks at what is left.
func (m *meter) end(after time.Duration) error {
	r := m.result
	rx, tx, err := m.packets()
	if err != nil {
		return err
	}
	r.entered, r.replies = tx-m.tx, rx-m.rx
	s, err := m.gw.Metrics()
	if err != nil {
		return err
	}
	r.events = s.Sub(m.series)
	time.Sleep(after)
	if r.after, err = testutil.RSS(m.gw.PID); err != nil {
		return err
	}
	if s, err = m.gw.Metrics(); err == nil {
		r.left = int(s["tungate_tcp_flow_records"])
	}
	return err
}

// packets are those that the client's kernel had from the device and gave to it.
func (m *meter) packets() (rx, tx int, err error) {
	text, err := m.lab.Client.Output("ip", "-s", "-j", "link", "show", "dev", testutil.TunName)
	if err != nil {
		return 0, 0, err
	}
	var links []struct {
		Stats64 struct {
			Rx, Tx struct{ Packets int }
		}
	}
	if err := json.Unmarshal([]byte(text), &links); err != nil {
		return 0, 0, err
	}
	if len(links) != 1 {
		return 0, 0, fmt.Errorf("ip: %d links", len(links))
	}
	return links[0].Stats64.Rx.Packets, links[0].Stats64.Tx.Packets, nil
}
