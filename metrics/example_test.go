package metrics_test

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/tungate/tungate/metrics"
	"github.com/tungate/tungate/proxy"
)

func ExampleNew() {
	served := func() proxy.Stats {
		return proxy.Stats{TCP: proxy.FlowStats{Open: 3}}
	}
	registry := metrics.New(metrics.Sources{Proxy: served})

	w := httptest.NewRecorder()
	registry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "tungate_proxy_flows{") {
			fmt.Println(lines.Text())
		}
	}
	// Output:
	// tungate_proxy_flows{protocol="tcp"} 3
	// tungate_proxy_flows{protocol="udp"} 0
}
