package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// row is what one phase came to.
type row struct {
	phase          string
	done           int64
	failed, lost   int
	took           time.Duration
	rss, heap      int64
	held           int // connections in the gateway at the end
	cores          float64
	probe, echo    time.Duration // slowest fresh connection of the phase
	probeFails     int
	probes         int
	dropped        int // packets the kernel dropped at the device's full queues
	packets        int // that the kernel gave the device in the phase
	events         string
	firstErr, note string
}

// phases is the run itself.
func (r *run) phases() error {
	stop := make(chan struct{})
	defer close(stop)
	go r.sampleLoop(stop)
	time.Sleep(2 * time.Second)
	var err error
	if r.start, err = r.watch.now(); err != nil {
		return err
	}
	if err := r.open("open", true); err != nil {
		return err
	}
	r.saveProfile("full", "heap?gc=1")
	if err := r.held(); err != nil {
		return err
	}
	for i, how := range r.ends {
		if r.stop.Load() {
			break
		}
		if err := r.end(how); err != nil {
			return err
		}
		if i == len(r.ends)-1 && !r.reopen {
			break
		}
		if err := r.open("open after "+how, false); err != nil {
			return err
		}
	}
	return nil
}

// sampleLoop samples each second, and says each five how far we are.
func (r *run) sampleLoop(stop chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		s, err := r.watch.now()
		if err != nil {
			r.logf("sample: %v", err)
		} else if i%5 == 0 {
			r.logf("%-18s %8d open, %5.0f MiB resident, %5.0f MiB heap, %d GCs", s.phase, s.open, mib(s.rss), mib(s.heap), s.gcs)
		}
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// phase runs one phase, with f, and adds its row.
func (r *run) phase(name string, f func(*row) error) error {
	r.watch.enter(name)
	r.logf("%s", name)
	before, err := r.watch.now()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	line := row{phase: name}
	packets, dropped := r.device()
	events, _ := r.gw.Metrics()
	start := time.Now()
	err = f(&line)
	if line.took == 0 {
		line.took = time.Since(start)
	}
	after, serr := r.watch.now()
	if serr == nil {
		line.rss, line.heap, line.held = after.rss, after.heap, after.held
		line.cores = (after.cpu - before.cpu).Seconds() / (after.at - before.at).Seconds()
	}
	line.probe, line.echo, line.probeFails, line.probes = r.watch.slowest(name)
	packetsNow, droppedNow := r.device()
	line.packets, line.dropped = packetsNow-packets, droppedNow-dropped
	if now, err := r.gw.Metrics(); err == nil {
		line.events = eventText(now.Sub(events))
	}
	r.rows = append(r.rows, line)
	r.logf("%s: %d done, %d failed, %d lost in %.1f s, slowest fresh connection %.0f ms, %d packets to the device, %d dropped there %s",
		name, line.done, line.failed, line.lost, line.took.Seconds(), millis(line.probe), line.packets, line.dropped, line.firstErr)
	if err == nil {
		err = serr
	}
	if err != nil && !r.gw.Alive() {
		err = fmt.Errorf("the gateway ended with status %d: %w\n%s", r.gw.ExitCode(), err, tail(r.gw.Log()))
	}
	return err
}

// device is how many packets the kernel has given the device, and how many it has
// dropped because a queue of it was full.
func (r *run) device() (packets, dropped int) {
	text, err := r.lab.Client.Output("ip", "-s", "-j", "link", "show", "dev", testutil.TunName)
	if err != nil {
		return 0, 0
	}
	var links []struct {
		Stats64 struct {
			Tx struct{ Packets, Dropped int }
		}
	}
	if json.Unmarshal([]byte(text), &links) != nil || len(links) != 1 {
		return 0, 0
	}
	return links[0].Stats64.Tx.Packets, links[0].Stats64.Tx.Dropped
}

// eventText names the gateway's largest counts of a phase.
func eventText(s testutil.Series) string {
	const metric, most = "tungate_tcp_flow_events_total{event=", 8
	keys := slices.Collect(maps.Keys(s))
	keys = slices.DeleteFunc(keys, func(k string) bool { return s[k] < 1 || !strings.HasPrefix(k, metric) })
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(s[b], s[a]) })
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %.0f", strings.Trim(strings.TrimPrefix(k, metric), `"}`), s[k])
	}
	return strings.Join(keys[:min(most, len(keys))], ", ")
}

// tail is the end of a long text.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// curve are the numbers of connections at which points are taken.
var curve = []int64{10_000, 100_000, 300_000, 1_000_000}

// open opens all connections; the first time with the curve.
func (r *run) open(name string, first bool) error {
	return r.phase(name, func(line *row) error {
		done := make(chan struct{})
		marked := make(chan struct{})
		go func() {
			defer close(marked)
			if first {
				r.markPoints(done)
			}
		}()
		if first {
			go r.saveProfile("open", "profile?seconds=4")
		}
		t, err := r.fleet.all(order{Op: "open", Window: r.window}, r.openers, 5*time.Minute)
		close(done)
		<-marked
		line.fill(t)
		return err
	})
}

func (l *row) fill(t tally) {
	l.done, l.failed, l.lost, l.took, l.firstErr = int64(t.done), t.failed, t.lost, t.took, t.firstErr
}

// markPoints takes the points of the curve until the opening is done; the last is
// where it ended.
func (r *run) markPoints(done chan struct{}) {
	last, _ := r.watch.now()
	mark := func() {
		s, err := r.watch.now()
		if err != nil || s.open == last.open {
			return
		}
		p := between(r.start, last, s)
		p.slowestProbe, _, _, _ = r.watch.slowest("open")
		r.points = append(r.points, p)
		r.logf("%8d connections: %.0f a second since the last point, %.0f MiB, %.1f us of CPU each, %.2f cores, %d GCs",
			p.conns, p.perSecond, mib(p.rss), micros(p.cpuPerConn), p.cores, p.gcs)
		last = s
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	todo := curve
	for {
		select {
		case <-done:
			mark()
			return
		case <-tick.C:
			if len(todo) > 0 && todo[0] < int64(r.n) && r.fleet.open.Load() >= todo[0] {
				mark()
				todo = todo[1:]
			}
		}
	}
}

// held keeps all connections for a while, one in a hundred active each second, then
// asks each for an echo.
func (r *run) held() error {
	err := r.phase("hold", func(line *row) error {
		line.note = "1 % active each second"
		for end := time.Now().Add(r.hold); time.Now().Before(end) && !r.stop.Load(); {
			next := time.Now().Add(time.Second)
			t, err := r.fleet.all(order{Op: "ping", Every: 100, Window: 16}, len(r.fleet.workers), time.Minute)
			line.done += int64(t.done)
			line.failed += t.failed
			line.lost = t.lost // counts from the processes' start
			if t.firstErr != "" {
				line.firstErr = t.firstErr
			}
			if err != nil {
				return err
			}
			time.Sleep(time.Until(next))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.phase("a byte on each", func(line *row) error {
		t, err := r.fleet.all(order{Op: "ping", Every: 1, Window: 16}, len(r.fleet.workers), 5*time.Minute)
		line.fill(t)
		return err
	})
}

// finWindow is how many FINs a process has under way. All at once they would overflow
// the device's queues, and what is measured is the kernel's backoff for minutes.
const finWindow = 64

// end ends all connections in one way and waits for the gateway's memory.
func (r *run) end(how string) error {
	name := map[string]string{"reset": "all reset", "fin": "all closed", "silent": "all silent"}[how]
	var awaited time.Duration
	err := r.phase(name, func(line *row) error {
		o := order{Op: "reset", Window: perProcess}
		switch how {
		case "fin":
			o = order{Op: "fin", Window: finWindow}
		case "silent":
			awaited = r.keepaliveTime()
			line.note = fmt.Sprintf("keepalive finds them within %v", awaited)
			if err := r.mute(true); err != nil {
				return err
			}
		}
		go r.saveProfile("end-"+how, "profile?seconds=4")
		t, err := r.fleet.all(o, len(r.fleet.workers), 5*time.Minute)
		line.fill(t)
		return err
	})
	if err != nil {
		return err
	}
	return r.phase("after "+how, func(line *row) error {
		deadline := time.Now().Add(awaited + r.settle)
		for time.Now().Before(deadline) && !r.stop.Load() {
			time.Sleep(time.Second)
		}
		r.saveProfile("after-"+how, "heap?gc=1")
		if how == "silent" {
			return r.mute(false)
		}
		return nil
	})
}

// keepaliveTime is how long the gateway takes to find that a client is gone: it may
// have been probed just before.
func (r *run) keepaliveTime() time.Duration {
	idle, _ := time.ParseDuration(r.keepalive[0])
	interval, _ := time.ParseDuration(r.keepalive[1])
	var count int
	_, _ = fmt.Sscan(r.keepalive[2], &count)
	return idle + time.Duration(count)*interval
}

// mute drops all that the clients, but not the prober, would send. No connection
// tracking is involved.
func (r *run) mute(on bool) error {
	if !on {
		_, err := r.lab.Client.Output("nft", "delete table inet scale")
		return err
	}
	_, err := r.lab.Client.Output("nft", "add table inet scale; "+
		"add chain inet scale out { type filter hook output priority 0; }; "+
		"add rule inet scale out ip saddr 198.18.0.1 oifname tun0 drop")
	return err
}

// startProber starts the process that opens fresh connections.
func (r *run) startProber() error {
	cmd := exec.Command(r.self, "-role", "probe")
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // its signals would interrupt calls
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	pr, pw := io.Pipe()
	cmd.Stdout = pw
	p, err := r.lab.Client.Start(cmd)
	if err != nil {
		return err
	}
	r.prober = p
	go func() {
		<-p.Done()
		if msg := strings.TrimSpace(p.Stderr.String()); msg != "" {
			r.logf("the prober ended: %s", msg)
		}
		pw.Close()
	}()
	go func() {
		for d := json.NewDecoder(pr); ; {
			var one probe
			if d.Decode(&one) != nil {
				return
			}
			r.watch.probed(one)
			if one.Err != "" {
				r.logf("a fresh connection failed after %.0f ms: %s", millis(one.Open), one.Err)
			}
		}
	}()
	return nil
}

// saveProfile keeps a profile of the gateway, where that was asked for.
func (r *run) saveProfile(when, what string) {
	if r.profile == "" {
		return
	}
	kind, _, _ := strings.Cut(what, "?")
	b, err := r.gw.Get("/debug/pprof/" + what)
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("%s-%s-%s.pprof", r.profile, when, kind), b, 0o644)
	}
	if err != nil {
		r.logf("profile %s: %v", when, err)
	}
}
