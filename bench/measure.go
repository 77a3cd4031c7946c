package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// serverPorts is how many ports the echo server listens on, so that connections
// closed a moment ago (TIME_WAIT) do not use up a pair of addresses.
const (
	firstPort   = 7000
	serverPorts = 16
)

// grace is what a measurement may take beyond its length.
const grace = 12 * time.Second

// rig is a subject at work between a client and a server.
type rig struct {
	subject *subject
	lab     *testutil.Lab
	server  *testutil.Process
	inst    *instance
}

// measure runs every test once against a fresh instance of each subject, one after
// the other, in an order that turns from test to test and from round to round: a
// subject never has only what the other left behind.
func (b *bench) measure(round int, tests []test, subjects ...*subject) (err error) {
	var rigs []*rig
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.close())
		}
	}()
	for _, s := range subjects {
		r := &rig{subject: s}
		rigs = append(rigs, r)
		if err := r.setUp(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for i, t := range tests {
		if err := alternately(round+i, rigs, func(r *rig) error { return r.run(b, t) }); err != nil {
			return err
		}
	}
	return nil
}

// alternately calls f for each element, from the last to the first in every other
// turn, and returns all errors.
func alternately[E any](turn int, all []E, f func(E) error) error {
	var errs []error
	for i := range all {
		if turn%2 == 0 {
			i = len(all) - 1 - i
		}
		errs = append(errs, f(all[i]))
	}
	return errors.Join(errs...)
}

// setUp starts the subject and waits until it carries traffic.
func (r *rig) setUp(b *bench) (err error) {
	if r.lab, err = testutil.NewLab(); err != nil {
		return err
	}
	if r.server, err = r.lab.Server.Start(b.role("server", "-addr", testutil.ServerV4.String())); err != nil {
		return err
	}
	if r.inst, err = r.subject.start(b, r.lab); err != nil {
		return err
	}
	return r.inst.awaitTraffic()
}

// close ends what setUp began, however far it came.
func (r *rig) close() error {
	var errs []error
	if r.inst != nil {
		errs = append(errs, r.inst.stop())
	}
	if r.server != nil {
		r.server.Kill()
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	return errors.Join(errs...)
}

// run runs one test; the error is the end of the subject.
func (r *rig) run(b *bench, t test) error {
	if b.interrupted.Load() {
		return nil
	}
	s, inst := r.subject, r.inst
	if terr := b.profiled(s, inst, t, func() error { return t.run(b, s.name, inst) }); terr != nil {
		b.logf("  %s %s: %v", s.name, t.name, terr)
	}
	if inst.proc != nil && !inst.proc.Alive() {
		return fmt.Errorf("%s ended with status %d during %s:\n%s%s", s.name, inst.proc.ExitCode(), t.name,
			inst.proc.Stdout, inst.proc.Stderr)
	}
	return nil
}

// test is one measurement.
type test struct {
	name  string
	timed bool // lasts -seconds, so that a profile of that length fits
	run   func(b *bench, name string, inst *instance) error
}

// gatewayTests are the names of the first table's tests.
func gatewayTests() []string { return []string{"idle", "rr", "rr64", "crr", "rrload", "bulk"} }

// testList is those of names, in the order that disturbs least: memory first, on a
// process that has done nothing else.
func (b *bench) testList(names []string) []test {
	list := []test{
		{"idle", false, (*bench).idleTest},
		{"rr", true, roundTrips("rr", 1)},
		{"rr64", true, roundTrips("rr64", 64)},
		{"crr", true, (*bench).connects},
		{"rrload", true, (*bench).roundTripsUnderLoad},
	}
	list = slices.DeleteFunc(list, func(t test) bool { return !slices.Contains(names, t.name) })
	if slices.Contains(names, "bulk") {
		for _, n := range b.streams {
			list = append(list,
				test{"up " + n, true, bulk("up "+n, n, false)},
				test{"down " + n, true, bulk("down "+n, n, true)})
		}
	}
	return list
}

// awaitTraffic waits until a byte comes back from the server.
func (i *instance) awaitTraffic() error {
	err := testutil.Poll(startTimeout, func() error {
		if i.proc != nil && !i.proc.Alive() {
			return fmt.Errorf("ended with status %d", i.proc.ExitCode())
		}
		c, err := i.client.Dial("tcp", net.JoinHostPort(testutil.ServerV4.String(), strconv.Itoa(firstPort)), time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	})
	if err != nil && i.proc != nil {
		err = fmt.Errorf("%w\n%s%s", err, i.proc.Stdout, i.proc.Stderr)
	}
	return err
}

// profiled runs f, taking a CPU profile of ours beside it where asked.
func (b *bench) profiled(s *subject, inst *instance, t test, f func() error) error {
	if b.cpuProfile == "" || inst.gateway == nil || !t.timed {
		return f()
	}
	name := t.name
	if s.name != ours {
		name = s.name + "-" + name
	}
	done := make(chan error, 1)
	go func() {
		done <- inst.profile("profile?seconds="+strconv.Itoa(b.seconds), b.cpuProfile, strings.ReplaceAll(name, " ", ""))
	}()
	err := f()
	return errors.Join(err, <-done)
}

// profile writes one of the gateway's profiles to PREFIX-NAME.pprof.
func (i *instance) profile(query, prefix, name string) error {
	p, err := i.gateway.Get("/debug/pprof/" + query)
	if err != nil {
		return err
	}
	return os.WriteFile(prefix+"-"+name+".pprof", p, 0o600)
}

// role is this program as a client or server. Go's preemption signals are off: a
// socket with a timeout returns EINTR for each of them (signal(7)).
func (b *bench) role(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(b.self, append([]string{"-role", name}, args...)...)
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	return cmd
}

// load runs this program as a client of the lab's server and reads its result.
func (b *bench) load(inst *instance, name string, args ...string) (roleResult, error) {
	return b.loadOn(inst.client, name, testutil.ServerV4, args...)
}

// loadOn runs this program as a client in ns and reads its result.
func (b *bench) loadOn(ns *testutil.Namespace, name string, addr netip.Addr, args ...string) (roleResult, error) {
	var res roleResult
	args = append(args, "-addr", addr.String(), "-for", strconv.Itoa(b.seconds)+"s")
	stdout, stderr, err := ns.Run(time.Duration(b.seconds)*time.Second+grace, b.role(name, args...))
	if err != nil {
		return res, fmt.Errorf("%w %s", err, strings.TrimSpace(stderr))
	}
	err = json.Unmarshal([]byte(stdout), &res)
	return res, err
}

// roundTrips measures 1-byte exchanges on conns connections at once.
func roundTrips(name string, conns int) func(*bench, string, *instance) error {
	return func(b *bench, subject string, inst *instance) error {
		res, err := b.load(inst, "rr", "-conns", strconv.Itoa(conns))
		if err != nil {
			return err
		}
		if conns == 1 {
			b.add(subject, name+" p50 us", res.P50us)
			b.add(subject, name+" p99 us", res.P99us)
			return nil
		}
		b.add(subject, name+" /s", res.Rate)
		return nil
	}
}

// roundTripsUnderLoad measures one connection's exchanges beside a bulk flow up.
func (b *bench) roundTripsUnderLoad(subject string, inst *instance) error {
	flow := b.iperf(inst, "1", false)
	flow.Seconds += 2 // it has to last until the exchanges end
	done := make(chan error, 1)
	go func() {
		_, err := flow.Run()
		done <- err
	}()
	res, err := b.load(inst, "rr", "-conns", "1")
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	b.add(subject, "rr load p50 us", res.P50us)
	b.add(subject, "rr load p99 us", res.P99us)
	return nil
}

// iperf is one run of the bulk load.
func (b *bench) iperf(inst *instance, streams string, down bool) testutil.IPerf {
	return testutil.IPerf{
		Server: inst.lab.Server, Client: inst.client, Addr: testutil.ServerV4,
		Seconds: b.seconds, Streams: streams, Down: down, Grace: grace,
	}
}

// connects measures connect, one byte each way, close.
func (b *bench) connects(subject string, inst *instance) error {
	res, err := b.load(inst, "crr", "-conns", "8")
	if err != nil {
		return err
	}
	b.add(subject, "crr /s", res.Rate)
	b.add(subject, "crr failed", float64(res.Failed))
	return nil
}

// bulk measures iperf3 with a number of streams.
func bulk(name, streams string, down bool) func(*bench, string, *instance) error {
	return func(b *bench, subject string, inst *instance) error {
		before, err := inst.snapshot()
		if err != nil {
			return err
		}
		res, err := b.iperf(inst, streams, down).Run()
		if err != nil {
			return err
		}
		after, err := inst.snapshot()
		if err != nil {
			return err
		}
		b.add(subject, name+" Gbit/s", res.BitsPerSecond/1e9)
		if inst.proc != nil {
			b.add(subject, name+" s/GB", (after.cpu-before.cpu).Seconds()/(res.Bytes/1e9))
		}
		if inst.gateway != nil {
			b.add(subject, name+" superframes %", 100*after.series.Sub(before.series).SuperframeShare(down))
		}
		return nil
	}
}

// snapshot is what an instance used so far.
type snapshot struct {
	cpu    time.Duration
	series testutil.Series
}

func (i *instance) snapshot() (s snapshot, err error) {
	if i.proc == nil {
		return s, nil
	}
	if i.gateway != nil {
		if s.series, err = i.gateway.Metrics(); err != nil {
			return s, err
		}
	}
	s.cpu, err = testutil.CPU(i.proc.PID)
	return s, err
}

// idleTest measures what a connection costs that has carried one byte each way
// and now does nothing.
func (b *bench) idleTest(subject string, inst *instance) error {
	if inst.proc == nil {
		return nil
	}
	rss := func() (int64, error) { return testutil.RSS(inst.proc.PID) }
	settled := func() (int64, error) { return testutil.Settle(settleTime, 0.002, rss) }
	before, err := settled()
	if err != nil {
		return err
	}
	cmd := b.role("idle", "-addr", testutil.ServerV4.String(), "-conns", strconv.Itoa(b.idle))
	stdin, err := cmd.StdinPipe() // its end ends the client
	if err != nil {
		return err
	}
	defer stdin.Close()
	client, err := inst.client.Start(cmd)
	if err != nil {
		return err
	}
	defer client.Kill()
	err = testutil.Poll(openTimeout, func() error {
		if !client.Alive() || !strings.Contains(client.Stdout.String(), "open") {
			return fmt.Errorf("%d connections are not open: %s", b.idle, client.Stderr)
		}
		return nil
	})
	if err != nil {
		return err
	}
	time.Sleep(idleFor)
	after, err := settled()
	if err != nil {
		return err
	}
	b.add(subject, "idle B/connection", float64(after-before)/float64(b.idle))
	if b.memProfile == "" || inst.gateway == nil {
		return nil
	}
	return errors.Join(inst.profile("heap", b.memProfile, "heap"), inst.profile("goroutine", b.memProfile, "goroutine"))
}

// Bounds of the idle test.
const (
	openTimeout = 30 * time.Second
	settleTime  = 10 * time.Second
	// idleFor is how long connections are left alone: programs tidy up only when
	// they have seen for a while that nothing changes.
	idleFor = 15 * time.Second
)

// add keeps one sample.
func (b *bench) add(subject, metric string, v float64) {
	b.samples.add(subject, metric, v)
	if b.verbose {
		b.logf("  %-12s %-24s %10.2f", subject, metric, v)
	}
}
