package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/internal/testutil"
)

// The subjects of the second table.
const (
	tundevLoop  = "tundev loop"
	rawRead     = "read(2)"
	sinkOurs    = "sink"
	sinkNoVnet  = "sink without vnet_hdr"
	sinkBare    = "gVisor's fdbased"
	oneQueue    = "1 queue"
	twoQueues   = "2 queues"
	sinkTimeout = 5 * time.Second // for a role to say that it is ready, or to end
)

// deviceTest is a measurement of the second table, which makes its own subjects.
type deviceTest struct {
	name string
	run  func(b *bench, round int) error
}

func deviceTests() []deviceTest {
	return []deviceTest{
		{"device", (*bench).readTest},
		{"sink", func(b *bench, round int) error { return b.sinkTest(round, sinkOurs) }},
		{"queues", (*bench).queuesTest},
		{"novnet", func(b *bench, round int) error { return b.sinkTest(round, sinkNoVnet, sinkBare) }},
	}
}

// measureDevice runs every test of the second table that was asked for, once.
func (b *bench) measureDevice(round int) {
	for _, t := range deviceTests() {
		if b.interrupted.Load() || !slices.Contains(b.tests, t.name) {
			continue
		}
		b.logf("round %d of %d: %s", round, b.rounds, t.name)
		if err := t.run(b, round); err != nil {
			b.logf("  %s: %v", t.name, err)
		}
	}
}

// readTest measures the bare device: both readers under the same loads.
func (b *bench) readTest(int) error {
	var errs []error
	for _, load := range []string{loadFrames, loadSuperframes} {
		if b.interrupted.Load() {
			break
		}
		res, err := b.drainOnce(load)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", load, err))
		}
		for subject, turns := range res {
			for _, t := range turns {
				if load == loadFrames {
					b.add(subject, "frames k/s", t.Rate/1e3)
				} else {
					b.add(subject, "superframes Gbit/s", t.Bits/1e9)
				}
				b.add(subject, load+" CPU ns", t.CPUns)
			}
		}
	}
	return errors.Join(errs...)
}

// drainOnce lets both readers read under a load.
func (b *bench) drainOnce(load string) (res drainResult, err error) {
	ns, err := newClient()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	reading, sending := twoProcessors()
	span := 2 * time.Duration(b.seconds) * time.Second // half of it each
	p, err := ns.Start(b.role("drain", "-load", load, "-for", span.String(), "-cpu", strconv.Itoa(reading)))
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	if err := awaitReady(p); err != nil {
		return nil, err
	}
	bound := span + grace // it is killed when the readers are done
	blaster, err := ns.Start(b.role("blast", "-addr", beyond().String(), "-for", bound.String(), "-cpu", strconv.Itoa(sending)))
	if err != nil {
		return nil, err
	}
	defer blaster.Kill()
	if err := p.Wait(bound); err != nil {
		return nil, fmt.Errorf("%w %s%s", err, p.Stderr, blaster.Stderr)
	}
	lines := strings.Split(strings.TrimSpace(p.Stdout.String()), "\n")
	return res, json.Unmarshal([]byte(lines[len(lines)-1]), &res)
}

// twoProcessors are where reader and sender run. Left alone they share one or not, by
// chance, and a frame that stays in its cache is read in a third of the time. -1 is
// any, where there is only one.
func twoProcessors() (reading, sending int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil || set.Count() < 2 {
		return -1, -1
	}
	var found []int
	for cpu := 0; len(found) < 2; cpu++ {
		if set.IsSet(cpu) {
			found = append(found, cpu)
		}
	}
	return found[0], found[1]
}

// sinkTest measures stacks between the device and a handler that has no upstream,
// fresh ones each time.
func (b *bench) sinkTest(round int, subjects ...string) error {
	var errs []error
	for _, n := range b.streams {
		for i, way := range []struct{ name, role string }{{"up ", "push"}, {"down ", "pull"}} {
			errs = append(errs, alternately(round+i, subjects, func(subject string) error {
				if b.interrupted.Load() {
					return nil
				}
				if err := b.sinkOnce(subject, way.name+n, way.role, n); err != nil {
					return fmt.Errorf("%s %s%s: %w", subject, way.name, n, err)
				}
				return nil
			}))
		}
	}
	return errors.Join(errs...)
}

// sinkOnce lets n clients write to a sink or read from it.
func (b *bench) sinkOnce(subject, name, role, n string) (err error) {
	ns, err := newClient()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	p, end, err := b.startSink(ns, stackOf(subject), name)
	if err != nil {
		return err
	}
	defer p.Kill()
	before, err := testutil.CPU(p.PID)
	if err != nil {
		return err
	}
	res, err := b.loadOn(ns, role, beyond(), "-conns", n)
	if err != nil {
		return fmt.Errorf("%w %s", err, p.Stderr)
	}
	after, err := testutil.CPU(p.PID)
	if err != nil {
		return err
	}
	b.add(subject, name+" Gbit/s", res.Bits/1e9)
	b.add(subject, name+" s/GB", (after-before).Seconds()/(res.Bytes/1e9))
	return end()
}

// startSink starts a sink in ns; end lets it write its profile and end.
func (b *bench) startSink(ns *testutil.Namespace, behind, name string) (p *testutil.Process, end func() error, err error) {
	args := []string{"-role", "sink", "-as", behind}
	if b.cpuProfile != "" {
		args = append(args, "-profile", b.cpuProfile+"-"+behind+"-"+strings.ReplaceAll(name, " ", "")+".pprof")
	}
	cmd := exec.Command(b.self, args...)
	stdin, err := cmd.StdinPipe() // its end ends the sink
	if err != nil {
		return nil, nil, err
	}
	if p, err = ns.Start(cmd); err != nil {
		return nil, nil, err
	}
	if err := awaitReady(p); err != nil {
		p.Kill()
		return nil, nil, err
	}
	return p, func() error {
		_ = stdin.Close()
		if err := p.Wait(sinkTimeout); err != nil {
			return fmt.Errorf("%w: %s", err, p.Stderr)
		}
		return nil
	}, nil
}

// stackOf is the stack behind a sink.
func stackOf(subject string) string {
	switch subject {
	case sinkNoVnet:
		return stackNoVnet
	case sinkBare:
		return stackBare
	}
	return stackOurs
}

// queuesTest measures the gateway with two queues and with one, by those tests of
// the first table that have a figure per connection or per byte.
func (b *bench) queuesTest(round int) error {
	var both []*subject
	for i, name := range []string{oneQueue, twoQueues} {
		config, err := testutil.EditConfig(b.config, b.dir, map[string]any{"device.queues": i + 1})
		if err != nil {
			return err
		}
		both = append(both, &subject{name: name, start: func(b *bench, lab *testutil.Lab) (*instance, error) {
			return startGateway(b, lab, config)
		}})
	}
	return b.measure(round, b.testList([]string{"rr", "crr", "bulk"}), both...)
}

// newClient makes a namespace for clients without a server's.
func newClient() (*testutil.Namespace, error) {
	ns, err := testutil.NewNamespace("client")
	if err != nil {
		return nil, err
	}
	if err := testutil.Tune(ns); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// beyond is an address beyond the device of openTUN.
func beyond() netip.Addr { return testutil.TunV4.Next() }

// awaitReady waits until a role has made its device.
func awaitReady(p *testutil.Process) error {
	return testutil.Poll(sinkTimeout, func() error {
		if !p.Alive() || !strings.Contains(p.Stdout.String(), "ready") {
			return fmt.Errorf("not ready: %s", p.Stderr)
		}
		return nil
	})
}
