// Command gateway turns a TUN or TAP device into connections.
//
//	gateway run -c FILE        serve a device as a config says
//	gateway exec -- CMD        run a program whose only way out is the gateway
//	gateway demo               see it work, in ten seconds
//	gateway probe              what devices can do here, and why not
//	gateway check -c FILE      report every fault in a config
//	gateway version
//
// Exit codes: 0, 1 failure, 2 usage or config; exec passes its command's on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/demo"
	"github.com/tungate/tungate/internal/nsrun"
)

// Exit codes of every subcommand but exec, which passes its command's on.
const (
	exitFailure = 1
	exitUsage   = 2
)

// cli is the command line.
type cli struct {
	Run     runCmd     `cmd:"" help:"Serve a device as a config file says, until SIGTERM or SIGINT."`
	Exec    execCmd    `cmd:"" help:"Run a program in a network namespace of its own, whose only way out is the gateway. Needs no root."`
	Demo    demoCmd    `cmd:"" help:"See the gateway work: a private namespace, real clients, every byte checked, figures at the end. Needs no root."`
	Probe   probeCmd   `cmd:"" help:"Say what TUN and TAP devices can do on this machine, and why not."`
	Check   checkCmd   `cmd:"" help:"Report every fault in a config file."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

func main() {
	// In the copies that exec and demo make of this program inside their
	// namespace, this never returns.
	nsrun.MaybeInit()
	if code, ran := demo.MaybeRun(context.Background()); ran {
		os.Exit(code)
	}
	os.Exit(execute(os.Args[1:]))
}

// execute runs the command line and returns the exit code.
func execute(args []string) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("gateway"),
		kong.Description("tungate: a gateway that turns a TUN or TAP device into connections."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.Vars{"version": version},
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		return exitFailure
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		parser.Errorf("%s", err)
		fmt.Fprintln(os.Stderr, `Try "gateway --help".`)
		return exitUsage
	}
	return report(ctx.Run())
}

// exitError is an exit code that somebody else has explained already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// report prints err and returns its exit code.
func report(err error) int {
	var code exitError
	var faults *config.Error
	var start *nsrun.Error
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &faults):
		fmt.Fprintln(os.Stderr, faults)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "gateway:", err)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &start):
		return start.Code
	}
	return exitFailure
}
