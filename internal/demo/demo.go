package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/tungate/tungate/internal/nsrun"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

// StartGateway serves device, whose interface has that MTU, until stop is called,
// which returns after the gateway's last goroutine. The device is the gateway's
// from then on.
type StartGateway func(ctx context.Context, device *os.File, mtu tundev.MTU, o proxy.Options) (stop func() error, err error)

// Deps are what the demo does not make itself.
type Deps struct {
	Start StartGateway
	// Program is how a person calls this program, for the advice at the end; ""
	// is gateway.
	Program string
}

// limit bounds the whole demo, and clientLimit what the client does of it, so that
// it is the client that says which step took too long.
const (
	limit       = 28 * time.Second
	clientLimit = 25 * time.Second
)

// Where the client finds the server. The addresses are set aside for documentation
// and private use (RFC 5737, RFC 4193), so no host is missed behind them.
const (
	serverV4 = "192.0.2.1"
	serverV6 = "fd00:2::1"
)

// Run runs the demo and tells of it on w. The error is one sentence.
func Run(ctx context.Context, w io.Writer, d Deps) error {
	return run(ctx, w, d, load{
		Connections: 1000, AtOnce: 200, Idle: idleConnections(), RoundTrips: 10_000,
		Patience: 2 * time.Second, Bulk: 2 * time.Second,
	})
}

func run(ctx context.Context, w io.Writer, d Deps, l load) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was not done within %v: is the machine busy?", limit))
	defer cancel()
	if d.Program == "" {
		d.Program = "gateway"
	}
	r := &runner{deps: d, load: l, out: w, begin: time.Now(), samples: map[string]int64{}}
	res, err := r.run(ctx)
	if err != nil {
		return fmt.Errorf("the demo failed: %w", err)
	}
	return printSummary(w, summary{
		results: *res,
		memory:  r.samples[sampleIdle] - r.samples[sampleBase],
		took:    time.Since(r.begin),
		program: d.Program,
	})
}

// runner is one run of the demo.
type runner struct {
	deps    Deps
	load    load
	out     io.Writer
	begin   time.Time
	samples map[string]int64 // the gateway's resident set at each sample, bytes
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%5.1f s  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (r *runner) run(ctx context.Context) (res *results, err error) {
	seed := rand.Uint64()
	srv, err := startServer(seed)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.close()) }()

	c, err := newClient(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	f := c.child.Facts()
	r.say("a network namespace of its own (%s), with the device %s (offloads: %s)", privilege(f), f.Name, f.Features)
	for _, note := range f.Notes {
		r.say("note: %s", note)
	}

	stop, err := r.deps.Start(ctx, c.child.Device(), f.MTU, options(srv.ports))
	if err != nil {
		return nil, err
	}
	// The client ends first, so that its kernel tells the gateway of every
	// connection while the device still carries it.
	defer func() { err = errors.Join(err, c.end(), stop()) }()
	r.say("the gateway serves %s", f.Name)
	if err := c.start(newPlan(seed, f, r.load)); err != nil {
		return nil, err
	}
	return r.follow(ctx, c)
}

func privilege(f nsrun.Facts) string {
	if f.UserNS {
		return "and a user namespace, so no root is needed"
	}
	return "made as root"
}

// options lead each of the client's addresses to the server.
func options(server map[string]ports) proxy.Options {
	forward := map[netip.AddrPort]netip.AddrPort{}
	for _, t := range targets(true) {
		to := server[t.Name]
		forward[t.HTTP], forward[t.Echo], forward[t.Bulk] = to.HTTP, to.Echo, to.Bulk
	}
	return proxy.Options{Handler: "direct", Forward: forward}
}

// targets are the addresses that the client knows.
func targets(v6 bool) []target {
	at := func(s string) ports {
		a := netip.MustParseAddr(s)
		return ports{HTTP: netip.AddrPortFrom(a, 80), Echo: netip.AddrPortFrom(a, 7), Bulk: netip.AddrPortFrom(a, 5001)}
	}
	all := []target{{nameV4, at(serverV4)}}
	if v6 {
		all = append(all, target{nameV6, at(serverV6)})
	}
	return all
}

// newPlan is for a namespace with these facts.
func newPlan(seed uint64, f nsrun.Facts, l load) plan {
	v6 := slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	return plan{Seed: seed, Families: targets(v6), Limit: clientLimit, load: l}
}

// idleConnections is 1,000, or what the process may have files for: the gateway
// needs one for each, the server and the client too.
func idleConnections() int {
	const want, spare = 1000, 300
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err == nil && r.Cur < want+spare {
		return max(10, int(r.Cur)-spare)
	}
	return want
}

// follow reads the client's events until its results.
func (r *runner) follow(ctx context.Context, c *clientProcess) (*results, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewScanner(c.events)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("the client said %q: %w", lines.Text(), err)
		}
		switch {
		case e.Say != "":
			r.say("%s", e.Say)
		case e.Failed != "":
			return nil, errors.New(e.Failed)
		case e.Result != nil:
			return e.Result, nil
		case e.Sample != "":
			size, err := residentSize()
			if err != nil {
				return nil, err
			}
			r.samples[e.Sample] = size
			if _, err := io.WriteString(c.answers, "\n"); err != nil {
				return nil, fmt.Errorf("the client went away: %w", err)
			}
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	code, err := c.child.Wait()
	return nil, errors.Join(fmt.Errorf("the client ended early with exit code %d", code), err, lines.Err())
}
