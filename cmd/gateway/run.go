package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/gateway"
)

type runCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The config (YAML); examples/ has some, docs/config.md explains every field."`
}

// Run serves until a signal or a failure.
func (c *runCmd) Run() error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	log := newLogger(cfg.Log, os.Stderr)
	ctx, cut, stop := untilSignal()
	defer stop()
	g, err := gateway.New(ctx, cfg, gateway.Deps{Log: log, Build: build(), Alone: true})
	switch {
	case ctx.Err() != nil && g == nil:
		return nil // it was waiting for its device
	case err != nil:
		return err
	}
	err = g.Run(ctx, cut)
	if err != nil {
		log.Error("failed: " + err.Error())
		return exitError(exitFailure)
	}
	return nil
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends, and a
// channel that the second one closes.
func untilSignal() (ctx context.Context, second <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	cut := make(chan struct{})
	quit := make(chan struct{})
	go func() {
		for _, end := range []func(){cancel, func() { close(cut) }} {
			select {
			case <-signals:
				end()
			case <-quit:
				return
			}
		}
	}()
	return ctx, cut, func() {
		signal.Stop(signals)
		close(quit)
		cancel()
	}
}

type checkCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The config to check (YAML)."`
}

// Run reads the config and nothing else.
func (c *checkCmd) Run() error {
	if _, err := config.Load(c.Config); err != nil {
		return err
	}
	fmt.Printf("%s: no faults\n", c.Config)
	return nil
}
