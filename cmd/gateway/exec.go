package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"github.com/tungate/tungate/admin"
	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/gateway"
	"github.com/tungate/tungate/internal/nsrun"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

type execCmd struct {
	MTU     uint32   `default:"1500" help:"MTU of the device, in bytes."`
	Allow   []string `placeholder:"CLASS" help:"Let the command reach a destination class that is denied by default: loopback, self, link-local, multicast, embedded. May be repeated."`
	Mark    uint32   `placeholder:"N" help:"SO_MARK of the gateway's own sockets (needs CAP_NET_ADMIN)."`
	Iface   string   `name:"interface" placeholder:"NAME" help:"Interface the gateway's own sockets are bound to."`
	Admin   string   `default:"off" placeholder:"ADDR" help:"Where the admin server listens, such as 127.0.0.1:9090 or unix:/path."`
	Verbose bool     `short:"v" help:"Log every flow to standard error."`
	Command []string `arg:"" passthrough:"" help:"The program and its arguments, after --."`
}

// Run serves the command's device until the command ends, and passes its exit
// code on.
func (c *execCmd) Run() error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	// kong leaves the separator in place.
	command := c.Command
	if len(command) > 1 && command[0] == "--" {
		command = command[1:]
	}
	child, err := nsrun.Start(context.Background(), nsrun.Spec{
		Command: command,
		Stdin:   os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Device: tundev.Options{MTU: tundev.MTU(c.MTU)},
	})
	if err != nil {
		return err
	}
	defer func() { _ = child.Close() }()
	code, err := c.serve(cfg, child)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// config makes the flags into a config.
func (c *execCmd) config() (*config.Config, error) {
	cfg := config.Default()
	cfg.Device.MTU = tundev.MTU(c.MTU)
	cfg.Admin = admin.Options{Listen: c.Admin}
	cfg.Proxy = proxy.Options{Mark: c.Mark, Interface: c.Iface}
	cfg.Log.Level = zap.WarnLevel
	if c.Verbose {
		cfg.Log.Level = zap.DebugLevel
	}
	for _, a := range c.Allow {
		var class proxy.Class
		if err := class.UnmarshalText([]byte(a)); err != nil {
			return nil, usageError{"--allow: " + err.Error()}
		}
		if !slices.Contains(cfg.Proxy.Allow, class) {
			cfg.Proxy.Allow = append(cfg.Proxy.Allow, class)
		}
	}
	if err := cfg.Device.Validate(); err != nil {
		return nil, usageError{"--" + err.Error()}
	}
	if err := cfg.Admin.Validate(); err != nil {
		return nil, usageError{"--admin: " + err.Error()}
	}
	return cfg, nil
}

// usageError is a fault of the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// serve runs the gateway beside the command.
func (c *execCmd) serve(cfg *config.Config, child *nsrun.Child) (int, error) {
	cfg.Proxy.Forward = child.Forward()
	log := newLogger(cfg.Log, os.Stderr)
	for _, note := range child.Facts().Notes {
		log.Warn(note)
	}
	device, err := tundev.Attach(child.Device(), child.Facts().MTU, cfg.Device.Offload)
	if err != nil {
		return 0, err
	}
	ctx, end := context.WithCancel(context.Background())
	g, err := gateway.New(ctx, cfg, gateway.Deps{Log: log, Build: build(), Alone: true, Device: device})
	if err != nil {
		end()
		return 0, err
	}
	// When the command is over nobody is left to drain for.
	over := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- g.Run(ctx, over) }()
	finish := func() error {
		close(over)
		end()
		return <-served
	}
	// Before the command runs, or a ^C in between would end us and not it.
	stop := forwardSignals(child)
	defer stop()
	if err := child.Release(); err != nil {
		_ = finish()
		return 0, err
	}
	select {
	case <-child.Done():
		if err := finish(); err != nil {
			return 0, err
		}
		return child.Wait()
	case err := <-served:
		end()
		return 0, err
	}
}

// forwardSignals passes SIGTERM and SIGHUP on. What a terminal sends (SIGINT,
// SIGQUIT) goes to its whole foreground group, so the command has it already; it
// must only not end the gateway before the command.
func forwardSignals(child *nsrun.Child) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	quit := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM || s == syscall.SIGHUP {
					_ = child.Signal(s)
				}
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(quit)
	}
}
