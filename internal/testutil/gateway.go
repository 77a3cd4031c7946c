package testutil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// AdminAddr is where the examples' configs serve /metrics and /readyz.
const AdminAddr = "127.0.0.1:9090"

// startTimeout bounds the wait for a gateway to say it is ready.
const startTimeout = 10 * time.Second

// RepoRoot is the module's folder, found from the working directory up.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, serr := os.Stat(filepath.Join(dir, "go.mod")); serr == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("testutil: no go.mod in this folder or above it")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// BuildGateway builds ./cmd/gateway to the file bin.
func BuildGateway(bin string, race bool) error {
	root, err := RepoRoot()
	if err != nil {
		return err
	}
	args := []string{"build", "-o", bin}
	cgo := "CGO_ENABLED=0"
	if race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./cmd/gateway")...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return nil
}

// Gateway is a running gateway.
type Gateway struct {
	*Process
	http *http.Client
}

// Nice is a setup of StartGateway by which the gateway has a nice value; 0 changes
// nothing.
func Nice(n int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		if n == 0 {
			return
		}
		nice := exec.Command("nice", append([]string{"-n", strconv.Itoa(n), cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path, cmd.Args, cmd.Err = nice.Path, nice.Args, nice.Err
	}
}

// StartGateway runs "bin run -c config" in the namespace and returns when /readyz
// says so; setup may change the command before. When it fails the error holds what
// the gateway printed.
func StartGateway(ns *Namespace, bin, config string, setup ...func(*exec.Cmd)) (*Gateway, error) {
	cmd := exec.Command(bin, "run", "-c", config)
	for _, f := range setup {
		f(cmd)
	}
	p, err := ns.Start(cmd)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return ns.dialNow(ctx, &net.Dialer{}, network, address)
	}
	g := &Gateway{Process: p, http: &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
	err = Poll(startTimeout, func() error {
		if !p.Alive() {
			return fmt.Errorf("gateway ended with status %d", p.ExitCode())
		}
		_, err := g.Get("/readyz")
		return err
	})
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("gateway did not get ready: %w\n%s", err, g.Log())
	}
	return g, nil
}

// Log is what the gateway printed so far.
func (g *Gateway) Log() string { return g.Stdout.String() + g.Stderr.String() }

// Get fetches a path of the admin server.
func (g *Gateway) Get(path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+AdminAddr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.200s", path, resp.Status, b)
	}
	return b, err
}

// Series are the samples of one scrape, by series as in the text format:
// `name{label="value"}`.
type Series map[string]float64

// Metrics scrapes /metrics.
func (g *Gateway) Metrics() (Series, error) {
	b, err := g.Get("/metrics")
	if err != nil {
		return nil, err
	}
	return ParseMetrics(string(b))
}

// ParseMetrics reads Prometheus's text format; histograms and such stay the plain
// series they are written as.
func ParseMetrics(text string) (Series, error) {
	out := Series{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			return nil, fmt.Errorf("metrics: %q", line)
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		out[line[:at]] = v
	}
	return out, sc.Err()
}

// Sum adds up every series of the metric name whose labels contain all of the
// given pairs, written `label="value"`.
func (s Series) Sum(name string, labels ...string) float64 {
	var sum float64
	for key, v := range s {
		metric, rest, _ := strings.Cut(key, "{")
		if metric != name {
			continue
		}
		match := true
		for _, l := range labels {
			match = match && strings.Contains(rest, l)
		}
		if match {
			sum += v
		}
	}
	return sum
}

// Sub returns s minus what it was before.
func (s Series) Sub(before Series) Series {
	out := make(Series, len(s))
	for k, v := range s {
		out[k] = v - before[k]
	}
	return out
}
