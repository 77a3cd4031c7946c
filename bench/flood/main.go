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
	seconds int
	clients int
	after   time.Duration
	configs []string
	floods  []string
	queue   int
	nice    int
	bin     string
}

func main() {
	var o options
	role := flag.String("role", "", "what to be inside a namespace (used by flood itself)")
	addr := flag.String("addr", "", "role: where to connect or to listen")
	from := flag.String("from", "", "role: the first client's own address, if each is to have another")
	configs := flag.String("configs", "examples/echo.yaml,examples/direct.yaml", "configs of the gateway, comma separated")
	kinds := flag.String("floods", "syn,syn6,strangers,trickle,ack,rst,fin,data", "floods, comma separated")
	flag.IntVar(&o.seconds, "seconds", 60, "length of each flood")
	flag.IntVar(&o.clients, "clients", 200, "real clients, evenly spread over it")
	flag.DurationVar(&o.after, "after", 15*time.Second, "when to look at memory again: past the handshake's timeout")
	flag.IntVar(&o.queue, "txqueuelen", 0, "packets a queue of the device holds before the kernel drops; 0 leaves what the gateway made")
	flag.IntVar(&o.nice, "nice", -20, "the gateway's nice value, before its clients as deploy/tungate.service has it; 0 is beside them")
	flag.StringVar(&o.bin, "bin", "", "a gateway already built; empty builds ./cmd/gateway")
	flag.Parse()
	comma := func(r rune) bool { return r == ',' }
	o.configs, o.floods = strings.FieldsFunc(*configs, comma), strings.FieldsFunc(*kinds, comma)

	var err error
	switch *role {
	case "clients":
		first, _ := netip.ParseAddr(*from)
		err = runClients(*addr, o.clients, time.Duration(o.seconds)*time.Second, first)
	case "sender":
		var to netip.AddrPort
		if to, err = netip.ParseAddrPort(*addr); err == nil {
			err = runSender(to)
		}
	case "server":
		err = runServer(*addr)
	default:
		err = o.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	options
	dir, self, root string
	interrupted     atomic.Bool // stop after the flood under way
	results         []result
}

func (o options) run() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; run it as root")
	}
	var kinds []kind
	for _, name := range o.floods {
		i := slices.IndexFunc(floods(), func(k kind) bool { return k.name == name })
		if i < 0 {
			return fmt.Errorf("-floods: there is no %q", name)
		}
		kinds = append(kinds, floods()[i])
	}
	if err := testutil.Sweep(); err != nil {
		return err
	}
	b := &bench{options: o}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.root, err = testutil.RepoRoot(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "tungate-flood-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if b.bin == "" {
		b.bin = filepath.Join(b.dir, "gateway")
		if err := testutil.BuildGateway(b.bin, false); err != nil {
			return err
		}
	}
	testutil.OnInterrupt(&b.interrupted)
	for _, config := range b.configs {
		for _, k := range kinds {
			if b.interrupted.Load() {
				break
			}
			r, err := b.measure(config, k)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", filepath.Base(config), k.name, err)
			}
			b.results = append(b.results, r)
			r.brief(os.Stderr)
		}
	}
	report(os.Stdout, b.results, o)
	return nil
}
