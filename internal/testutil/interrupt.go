package testutil

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// OnInterrupt sets stop at the first SIGINT or SIGTERM, so that a long run ends after
// what is under way, with what was measured printed; the second kills.
func OnInterrupt(stop *atomic.Bool) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-c
		signal.Stop(c)
		stop.Store(true)
	}()
}
