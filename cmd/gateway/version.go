package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/tungate/tungate/metrics"
)

// version is set by the linker (-X main.version=v1.2.3).
var version = "devel"

// build describes this binary.
func build() metrics.Build {
	b := metrics.Build{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	b := build()
	fmt.Printf("tungate %s", b.Version)
	if b.Revision != "" {
		fmt.Printf(" (%.12s)", b.Revision)
	}
	fmt.Printf(", %s %s/%s\n", b.Go, runtime.GOOS, runtime.GOARCH)
	return nil
}
