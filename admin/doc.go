// Package admin is the HTTP server people and Prometheus ask how the gateway is.
//
// # Theory of operation
//
// [New] binds the listen address and starts nothing, so that a port in use is
// known before a device is made. [Server.Run] serves until its context is done
// or [Server.Close] is called, and returns when the last connection's goroutine
// has ended.
//
//	/         a page that links the others
//	/metrics  Deps.Metrics
//	/healthz  200 while the process answers at all
//	/readyz   200 when Deps.Ready says so, else 503 with its sentence
//	/debug/pprof/  only with Options.PProf
//
// # Who may ask
//
// Everything here is read-only: any method but GET and HEAD is refused. By
// default the server listens on 127.0.0.1 alone. A unix socket is made with mode
// 0600 before it has a name, so that there is no moment in which others could
// connect.
//
// A loopback address does not keep out a web page: its script may ask for a name
// that its author's DNS points at 127.0.0.1 (DNS rebinding, CVE-2022-41924). The
// browser then sends that name as Host, so a request is served only when its Host
// is an address literal or localhost. On a loopback listener the literal must be
// a loopback address too. On any other listener every literal will do: behind a
// published container port the address the client wrote is not one of ours, and a
// literal cannot be rebound.
//
// # Goroutines
//
// Run serves on the caller's goroutine and adds one that waits for the end, and
// net/http adds one or two a connection. All of them have ended when Run or Close
// returns.
package admin
