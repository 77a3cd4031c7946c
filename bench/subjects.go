package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// The names of the two subjects that every ratio is about.
const (
	ours  = "tungate"
	plain = "kernel"
)

// startTimeout bounds the wait for a subject to carry its first byte.
const startTimeout = 10 * time.Second

// subject is something that carries traffic from a client to the server.
type subject struct {
	name  string
	about string // version and settings, for the report
	tool  string // the program it needs, "" none
	start func(b *bench, lab *testutil.Lab) (*instance, error)
}

// instance is a subject at work in a lab.
type instance struct {
	lab     *testutil.Lab
	client  *testutil.Namespace // where clients run
	proc    *testutil.Process   // the gateway, nil for none
	gateway *testutil.Gateway   // proc as ours, else nil
	guest   *testutil.Namespace // removed with the instance, may be nil
}

// stop ends what start began.
func (i *instance) stop() error {
	var err error
	if i.proc != nil {
		i.proc.Kill()
	}
	if i.guest != nil {
		err = i.guest.Close()
	}
	return err
}

// subjects returns those asked for, or those installed; none if no test of the first
// table was asked for.
func (b *bench) subjects() ([]*subject, error) {
	if !b.wants(gatewayTests()...) {
		return nil, nil
	}
	all := []*subject{
		{name: plain, about: "no gateway, plain veth", start: startPlain},
		{name: ours, about: "this repository, MTU 1500", start: startOurs},
		{name: "pasta", about: debianVersion("passt") + ", MTU 65520", tool: "pasta", start: startPasta},
		{name: "slirp4netns", about: debianVersion("slirp4netns") + ", MTU 65520", tool: "slirp4netns", start: startSlirp},
		{name: "haproxy", about: debianVersion("haproxy") + ", behind iptables REDIRECT, with conntrack", tool: "haproxy", start: startHAProxy},
	}
	var out []*subject
	for _, s := range all {
		asked := slices.Contains(b.only, s.name)
		if len(b.only) > 0 && !asked {
			continue
		}
		if s.tool != "" {
			if _, err := exec.LookPath(s.tool); err != nil {
				if asked {
					return nil, err
				}
				b.logf("%s is not installed, left out", s.name)
				continue
			}
		}
		out = append(out, s)
	}
	for _, name := range b.only {
		if !slices.ContainsFunc(all, func(s *subject) bool { return s.name == name }) {
			return nil, fmt.Errorf("-only: %q is not one of kernel, tungate, pasta, slirp4netns, haproxy", name)
		}
	}
	return out, nil
}

// debianVersion is the installed version of a Debian package.
func debianVersion(pkg string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return "version unknown"
	}
	return strings.TrimSpace(string(out))
}

func startPlain(_ *bench, lab *testutil.Lab) (*instance, error) {
	return &instance{lab: lab, client: lab.Client}, nil
}

func startOurs(b *bench, lab *testutil.Lab) (*instance, error) {
	return startGateway(b, lab, b.config)
}

// startGateway is ours with a config.
func startGateway(b *bench, lab *testutil.Lab, config string) (*instance, error) {
	g, err := testutil.StartGateway(lab.Client, b.bin, config)
	if err != nil {
		return nil, err
	}
	i := &instance{lab: lab, client: lab.Client, proc: g.Process, gateway: g}
	if err := lab.RouteIntoDevice(); err != nil {
		return nil, errors.Join(err, i.stop())
	}
	return i, nil
}

// startPasta puts clients in a guest namespace whose tap device pasta serves from
// the lab's client namespace.
func startPasta(_ *bench, lab *testutil.Lab) (*instance, error) {
	return startBeside(lab, func(guest *testutil.Namespace) *exec.Cmd {
		return exec.Command("pasta", "--foreground", "--quiet", "--config-net", "--mtu", "65520",
			"--interface", "up0", "--address", testutil.ClientV4.String(), "--netmask", "24",
			"--gateway", testutil.RouterV4.String(), "--no-map-gw", "--ipv4-only",
			"--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
			"--runas", "0", "--netns-only", "--netns", guest.Path())
	})
}

func startSlirp(_ *bench, lab *testutil.Lab) (*instance, error) {
	return startBeside(lab, func(guest *testutil.Namespace) *exec.Cmd {
		return exec.Command("slirp4netns", "--configure", "--mtu", "65520", "--disable-host-loopback",
			"--cidr", "198.18.0.0/24", "--netns-type", "path", guest.Path(), "tap0")
	})
}

// startBeside starts a gateway that serves a namespace of its own.
func startBeside(lab *testutil.Lab, command func(*testutil.Namespace) *exec.Cmd) (*instance, error) {
	guest, err := testutil.NewNamespace("guest")
	if err != nil {
		return nil, err
	}
	i := &instance{lab: lab, client: guest, guest: guest}
	if err := testutil.Tune(guest); err != nil {
		return nil, errors.Join(err, i.stop())
	}
	if i.proc, err = lab.Client.Start(command(guest)); err != nil {
		return nil, errors.Join(err, i.stop())
	}
	return i, nil
}

// haproxySource is the address haproxy dials from; what carries it is not
// redirected again.
const haproxySource = "192.0.2.3"

// haproxyConfig serves every redirected connection by a connection to its
// original destination. maxconn keeps both sides below 20,000 descriptors.
const haproxyConfig = `global
  maxconn 9000
  nbthread 2
defaults
  mode tcp
  maxconn 9000
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen redirected
  bind 127.0.0.1:15001
  server original 0.0.0.0 source ` + haproxySource + `
`

func startHAProxy(b *bench, lab *testutil.Lab) (*instance, error) {
	if err := lab.Client.IP("addr add " + haproxySource + "/24 dev up0"); err != nil {
		return nil, err
	}
	_, err := lab.Client.Output("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp",
		"-d", testutil.LocalNet4.String(), "!", "-s", haproxySource, "-j", "REDIRECT", "--to-ports", "15001")
	if err != nil {
		return nil, err
	}
	cfg := filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(cfg, []byte(haproxyConfig), 0o600); err != nil {
		return nil, err
	}
	p, err := lab.Client.Start(exec.Command("haproxy", "-db", "-f", cfg))
	if err != nil {
		return nil, err
	}
	return &instance{lab: lab, client: lab.Client, proc: p}, nil
}

// gatewayConfig is the config to run ours with: the file asked for, with pprof on
// when profiles are.
func (b *bench) gatewayConfig() (string, error) {
	path := b.config
	if !filepath.IsAbs(path) {
		root, err := testutil.RepoRoot()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, path)
	}
	if b.cpuProfile == "" && b.memProfile == "" {
		return path, nil
	}
	return testutil.EditConfig(path, b.dir, map[string]any{"admin.pprof": true})
}
