package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/tungate/tungate/admin"
	"github.com/tungate/tungate/config"
	"github.com/tungate/tungate/internal/demo"
	"github.com/tungate/tungate/internal/gateway"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

type demoCmd struct{}

// Run shows the gateway at work.
func (demoCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return demo.Run(ctx, os.Stdout, demo.Deps{Start: startDemo, Program: program()})
}

// program is how a person calls this program: under go run it is not by the path of
// a binary that is gone a moment later.
func program() string {
	if strings.Contains(os.Args[0], string(filepath.Separator)+"go-build") {
		return "go run ./cmd/gateway"
	}
	return os.Args[0]
}

// startDemo serves the demo's device until stop is called.
func startDemo(ctx context.Context, file *os.File, mtu tundev.MTU, o proxy.Options) (stop func() error, err error) {
	cfg := config.Default()
	cfg.Proxy = o
	cfg.Admin.Listen = admin.Off
	cfg.Log.Level = zap.ErrorLevel // a drain that was cut short is no news here
	device, err := tundev.Attach(file, mtu, tundev.Offload{})
	if err != nil {
		return nil, err
	}
	g, err := gateway.New(ctx, cfg, gateway.Deps{Log: newLogger(cfg.Log, os.Stderr), Build: build(), Device: device})
	if err != nil {
		return nil, err
	}
	// Not from ctx: the demo stops the gateway when its client is gone.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cut := make(chan struct{})
	close(cut)
	done := make(chan error, 1)
	go func() { done <- g.Run(run, cut) }()
	return func() error {
		cancel()
		return <-done
	}, nil
}
