package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/tungate/tungate/tundev"
)

type probeCmd struct {
	JSON bool `help:"Print JSON instead of a table."`
}

// Run prints what devices can do here; it fails if none can be made.
func (c *probeCmd) Run() error {
	r := tundev.Probe(tundev.Options{})
	show := showReport
	if c.JSON {
		show = encodeReport
	}
	if err := show(r); err != nil {
		return err
	}
	if !r.OK {
		return exitError(exitFailure)
	}
	return nil
}

func encodeReport(r tundev.Report) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func showReport(r tundev.Report) error {
	fmt.Printf("kernel %s\n\n", r.Kernel)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range r.Features {
		mark := "yes"
		if !f.OK {
			mark = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, mark, f.Detail)
	}
	return w.Flush()
}
