package main

import (
	"errors"
	"flag"
	"fmt"
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
	rounds     int
	seconds    int
	idle       int
	only       []string
	tests      []string
	streams    []string
	config     string
	bin        string
	out        string
	cpuProfile string
	memProfile string
	verbose    bool
}

func main() {
	var o options
	role := flag.String("role", "", "what to be inside a namespace (used by bench itself)")
	var r roleOptions
	r.register(flag.CommandLine)
	only := flag.String("only", "", "subjects to measure, comma separated; empty is all that are installed")
	tests := flag.String("tests", strings.Join(testNames(), ","), "tests to run, comma separated")
	streams := flag.String("streams", "1,8", "numbers of parallel streams of the bulk test")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each subject is measured; medians are printed")
	flag.IntVar(&o.seconds, "seconds", 3, "length of one measurement")
	flag.IntVar(&o.idle, "idle", 5000, "connections of the idle test")
	flag.StringVar(&o.config, "config", "examples/direct.yaml", "the gateway's config")
	flag.StringVar(&o.bin, "bin", "", "a gateway already built; empty builds ./cmd/gateway")
	flag.StringVar(&o.out, "out", "", "also write every sample to this file, as .json or .csv")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write CPU profiles of the gateway, and of what serves a sink, to PREFIX-TEST.pprof")
	flag.StringVar(&o.memProfile, "memprofile", "", "write the gateway's heap and goroutines with idle connections to PREFIX-heap.pprof and PREFIX-goroutine.pprof")
	flag.BoolVar(&o.verbose, "v", false, "print every sample as it comes")
	flag.Parse()

	var err error
	if *role != "" {
		err = r.run(*role)
	} else {
		o.only, o.tests, o.streams = split(*only), split(*tests), split(*streams)
		if err = o.validate(); err == nil {
			err = o.run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// testNames lists every test.
func testNames() []string {
	names := gatewayTests()
	for _, t := range deviceTests() {
		names = append(names, t.name)
	}
	return names
}

// wants reports whether any of the tests called names was asked for.
func (o options) wants(names ...string) bool {
	return slices.ContainsFunc(o.tests, func(t string) bool { return slices.Contains(names, t) })
}

// validate reports what was asked for and is not there.
func (o options) validate() error {
	var errs []error
	for _, t := range o.tests {
		if !slices.Contains(testNames(), t) {
			errs = append(errs, fmt.Errorf("-tests: %q is not one of %s", t, strings.Join(testNames(), ", ")))
		}
	}
	return errors.Join(errs...)
}

// split cuts a comma separated list; an empty one has no elements.
func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// bench is one run of the program.
type bench struct {
	options
	dir         string      // temporary files
	self        string      // this executable, for the roles
	interrupted atomic.Bool // stop at the next measurement
	samples     samples
}

// run measures and reports.
func (o options) run() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; run it as root")
	}
	if err := testutil.Sweep(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tungate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{options: o, dir: dir, samples: samples{}}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	testutil.OnInterrupt(&b.interrupted)
	subjects, err := b.subjects()
	if err != nil {
		return err
	}
	if err := b.prepare(subjects); err != nil {
		return err
	}
	b.warnOfLoad()
	started := time.Now()
	for round := 1; round <= o.rounds && !b.interrupted.Load(); round++ {
		for _, s := range subjects {
			b.logf("round %d of %d: %s", round, o.rounds, s.name)
			if err := b.measure(round, b.testList(b.tests), s); err != nil {
				b.logf("%v", err)
			}
		}
		b.measureDevice(round)
	}
	b.logf("measured in %v", time.Since(started).Round(time.Second))
	if len(subjects) > 0 {
		b.report(os.Stdout, subjects)
	}
	b.reportDevice(os.Stdout)
	if o.out != "" {
		return b.samples.write(o.out)
	}
	return nil
}

// prepare builds the gateway where it is to be measured.
func (b *bench) prepare(subjects []*subject) error {
	if !b.wants("queues") && !slices.ContainsFunc(subjects, func(s *subject) bool { return s.name == ours }) {
		return nil
	}
	var err error
	if b.config, err = b.gatewayConfig(); err != nil {
		return err
	}
	if b.bin == "" {
		b.bin = filepath.Join(b.dir, "gateway")
		b.logf("building the gateway")
		return testutil.BuildGateway(b.bin, false)
	}
	b.bin, err = filepath.Abs(b.bin)
	return err
}

// warnOfLoad says when the machine is busy with something else: the figures of
// whoever is measured meanwhile would be lower.
func (b *bench) warnOfLoad() {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	var load float64
	if _, err := fmt.Sscan(string(text), &load); err == nil && load > quiet {
		b.logf("the load average is %.1f: something else runs here, figures will be lower and differ from round to round", load)
	}
}

// quiet is a load average below which the machine has nothing else to do; building
// the gateway alone makes some.
const quiet = 1.0

func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
