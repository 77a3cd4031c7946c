package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/tundev"
)

type probeCmd struct {
	Config string `short:"c" placeholder:"FILE" xor:"device" help:"A config: say what its device would be like."`
	Device string `placeholder:"NAME" xor:"device" help:"A device that exists: say what it can do."`
	JSON   bool   `help:"Print JSON instead of a table."`
}

// Run prints what devices can do here; it fails if there is none to serve.
func (c *probeCmd) Run() error {
	r, err := c.probe()
	if err != nil {
		return err
	}
	show := showReport
	if c.JSON {
		show = encodeReport
	}
	if err := show(os.Stdout, r); err != nil {
		return err
	}
	if !r.OK {
		return exitError(exitFailure)
	}
	return nil
}

func (c *probeCmd) probe() (tundev.Report, error) {
	if c.Device != "" {
		return tundev.ProbeInterface(c.Device), nil
	}
	var o tundev.Options
	if c.Config != "" {
		cfg, err := config.Load(c.Config)
		if err != nil {
			return tundev.Report{}, err
		}
		o = cfg.Device
	}
	return tundev.Probe(o), nil
}

func encodeReport(w io.Writer, r tundev.Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// showReport prints the answer first and the reasons below.
func showReport(w io.Writer, r tundev.Report) error {
	fmt.Fprintf(w, "kernel %s: %s\n\n", r.Kernel, r.Summary())
	if i := r.Interface; i != nil {
		fmt.Fprintf(w, "%s is a %s, %s, MTU %d%s\n\n", i.Name, i.Kind, word(i.Up, "up", "down"), i.MTU, word(i.MultiQueue, ", made for several queues", ""))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range r.Features {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, word(f.OK, "yes", "no"), f.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	c := r.Configured
	if c == nil || c.Error != "" {
		return nil
	}
	fmt.Fprintf(w, "\na gateway gets: %s, %d queue%s, MTU %d, offloads %s\n", c.Kind, c.Queues, word(c.Queues == 1, "", "s"), c.MTU, c.Offloads)
	for _, n := range c.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	return nil
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
