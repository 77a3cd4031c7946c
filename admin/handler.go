package admin

import (
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"

	"go.uber.org/zap"
)

// newHandler builds the pages behind their guard.
func newHandler(o Options, d Deps, at endpoint) http.Handler {
	mux := http.NewServeMux()
	pages := []page{{"/healthz", "the process answers"}, {"/readyz", "the gateway serves, or why not"}}
	if d.Metrics != nil {
		pages = append(pages, page{"/metrics", "counters for Prometheus"})
		mux.Handle("/metrics", d.Metrics)
	}
	if o.PProf {
		pages = append(pages, page{"/debug/pprof/", "profiles of the program"})
		handleProfiles(mux)
	}
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { serveReady(w, d.Ready) })
	mux.Handle("/{$}", index(pages))
	return &guard{next: mux, at: at, log: d.Log}
}

func serveReady(w http.ResponseWriter, ready func() error) {
	if ready != nil {
		if err := ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
	}
	answer(w, http.StatusOK, "ready")
}

// handleProfiles registers what net/http/pprof would put on the default mux.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
}

// page is a line of the index.
type page struct{ Path, Meaning string }

// index serves the list of pages, rendered once: it never changes.
func index(pages []page) http.Handler {
	const text = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>tungate</title>
<h1>tungate</h1>
<ul>
{{range .}}<li><a href="{{.Path}}">{{.Path}}</a>: {{.Meaning}}</li>
{{end}}</ul>
</html>
`
	var b strings.Builder
	if err := template.Must(template.New("index").Parse(text)).Execute(&b, pages); err != nil {
		panic("admin: the index page: " + err.Error())
	}
	html := b.String()
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(html)) // the client has gone: nobody to tell
	})
}

// answer writes one line of text.
func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(line + "\n")) // the client has gone: nobody to tell
}

// guard refuses what no honest client sends; the package comment says why.
type guard struct {
	next http.Handler
	at   endpoint
	log  *zap.Logger
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed, "this server only answers GET and HEAD")
	case !g.hostAllowed(r.Host):
		answer(w, http.StatusForbidden, fmt.Sprintf(
			"the Host header %.64q is refused; ask by %s (a name could be pointed here by a web page)", r.Host, g.hostHint()))
	case strings.HasPrefix(r.URL.Path, "/debug/") && r.Header.Get("Sec-Fetch-Site") == "cross-site":
		// A profile costs CPU even when the page that asked may not read it.
		answer(w, http.StatusForbidden, "profiles are not served to other web sites; open this address yourself")
	default:
		g.next.ServeHTTP(w, r)
	}
}

// hostAllowed reports whether host, as a client sent it, is no name that somebody
// else's DNS could have pointed here.
func (g *guard) hostAllowed(host string) bool {
	if g.at.path != "" {
		return true // no browser speaks to a unix socket
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return false
	}
	return g.at.exposed() || ip.Unmap().IsLoopback()
}

func (g *guard) hostHint() string {
	if g.at.exposed() {
		return "numeric address"
	}
	return "127.0.0.1 or localhost"
}
