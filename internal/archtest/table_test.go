package archtest

const module = "github.com/tungate/tungate"

// Third-party modules. A row that does not name one may not import it.
const (
	gvisor     = "gvisor.dev/gvisor"
	waiter     = "gvisor.dev/gvisor/pkg/waiter"
	sys        = "golang.org/x/sys"
	wgtun      = "golang.zx2c4.com/wireguard/tun"
	netlink    = "github.com/vishvananda/netlink"
	netns      = "github.com/vishvananda/netns"
	prometheus = "github.com/prometheus"
	zap        = "go.uber.org/zap"
	goleak     = "go.uber.org/goleak"
	dhcpv4     = "github.com/insomniacslk/dhcp/dhcpv4"
	dhcpIANA   = "github.com/insomniacslk/dhcp/iana"
	kong       = "github.com/alecthomas/kong"
	yaml       = "go.yaml.in/yaml/v3"
)

// row says what one package may import besides the standard library and x/sys.
type row struct {
	why    string   // printed when an import breaks it
	ours   []string // packages of this module
	theirs []string // prefixes of third-party import paths
	tests  []string // packages of this module its tests may import as well
}

// anything in ours lets a package import every package of the module.
const anything = "..."

// testHelpers are what the tests of every package may import.
var testHelpers = []string{"internal/testutil", "internal/testutil/wait", "tundev/tuntest"}

// table is the import graph. A package that is not in it fails the test: add a
// row, and say what the package is for in DESIGN.md.
var table = map[string]row{
	"flow": {
		why: "flow is the leaf where stack and proxy meet, so it knows neither",
	},
	"offload": {
		why: "offload is arithmetic on bytes: no fd, no goroutine, no dependency",
	},
	"lan": {
		why:    "lan speaks Ethernet with the guests of a TAP device, below any stack and above no fd",
		ours:   []string{"offload"},
		theirs: []string{dhcpv4, dhcpIANA},
	},
	"loop": {
		why: "loop knows fds, timers and functions, not what they are for",
	},
	"tundev": {
		why:    "tundev owns the device and knows nothing of connections",
		ours:   []string{"offload"},
		theirs: []string{wgtun, netlink, netns},
	},
	"tundev/tuntest": {
		why:    "tuntest fakes what tundev opens",
		ours:   []string{"offload", "tundev"},
		theirs: []string{netlink, netns},
	},
	"netstack": {
		why:    "netstack hands connections out as flow.Conn; it must not know who serves them",
		ours:   []string{"flow", "loop", "offload", "tundev", "lan", "netstack/link", "netstack/minisock"},
		theirs: []string{gvisor},
	},
	"netstack/link": {
		why:    "link moves frames between queues and the stack, below any connection",
		ours:   []string{"lan", "loop", "offload", "tundev", "netstack/minisock"},
		theirs: []string{gvisor},
	},
	"netstack/minisock": {
		why:  "minisock keeps connection states from the packets alone: no stack, no fd, no goroutine",
		ours: []string{"flow", "offload"},
	},
	"epollbridge": {
		why:    "epollbridge turns waiter queues into readiness and needs no more of gVisor",
		theirs: []string{waiter},
	},
	"proxy": {
		why:    "proxy serves any flow.Conn; what terminated it is not its business",
		ours:   []string{"flow", "loop", "epollbridge"},
		theirs: []string{zap},
	},
	"metrics": {
		why: "metrics reads the others' Stats, and nobody else knows Prometheus",
		ours: []string{
			"flow", "offload", "tundev", "loop", "netstack", "netstack/link", "netstack/minisock",
			"epollbridge", "proxy", "lan",
		},
		theirs: []string{prometheus},
	},
	"admin": {
		why:    "admin is HTTP over what metrics offers",
		ours:   []string{"metrics"},
		theirs: []string{zap},
	},
	"config": {
		why:    "config turns a file into each package's Options and starts nothing",
		ours:   []string{"tundev", "netstack", "netstack/link", "proxy", "metrics", "admin", "lan"},
		theirs: []string{yaml, zap},
	},
	"internal/gateway": {
		why:    "gateway is the composition root: it alone knows every part",
		ours:   []string{anything},
		theirs: []string{zap, netlink, netns},
	},
	"internal/memory": {
		why: "memory paces the garbage collector and knows of nothing else",
	},
	"internal/nsrun": {
		why:    "nsrun makes namespaces around a command; what runs in them is the caller's",
		ours:   []string{"tundev"},
		theirs: []string{netlink, netns},
	},
	"internal/demo": {
		why:   "demo plays client and server around a gateway that its caller starts",
		ours:  []string{"internal/nsrun", "proxy", "tundev"},
		tests: []string{"config", "internal/gateway"},
	},
	"internal/testutil": {
		why:    "testutil builds networks for tests, below every package under test",
		ours:   []string{"offload", "tundev"},
		theirs: []string{netlink, netns, yaml},
	},
	"internal/testutil/wait": {
		why:    "wait is of tests only, so it may know testing.T",
		theirs: []string{goleak},
	},
	"internal/archtest": {
		why: "archtest looks at the others as text",
	},
	"cmd/gateway": {
		why: "cmd/gateway makes flags into Options and errors into exit codes; the stack is internal/gateway's",
		ours: []string{
			"config", "internal/gateway", "internal/nsrun", "internal/demo",
			"admin", "metrics", "proxy", "tundev",
		},
		theirs: []string{kong, zap},
	},
	"e2e": {
		why:  "e2e sees the program from outside",
		ours: []string{anything},
	},
	"bench": {
		why: "bench sees the program and its peers from outside, and measures device, loop and stack by themselves",
		ours: []string{
			"internal/testutil", "flow", "offload", "tundev", "loop", "netstack", "bench/baseline",
		},
		theirs: []string{kong, netlink, netns, yaml},
	},
	"bench/baseline": {
		why:    "baseline is gVisor without us: what our link is measured against must share nothing with it",
		ours:   []string{"flow"},
		theirs: []string{gvisor},
	},
	"bench/flood": {
		why:  "bench/flood sees the program from outside",
		ours: []string{"internal/testutil"},
	},
	"bench/scale": {
		why:  "bench/scale sees the program from outside",
		ours: []string{"internal/testutil"},
	},
	"deploy": {
		why:   "deploy is manifests; its tests read the configs in them",
		tests: []string{"config"},
	},
	"deploy/filecap": {
		why: "filecap runs in the image's build, from the standard library alone",
	},
}

// exits lists the files that may end the process, and why.
var exits = map[string]string{
	"cmd/gateway/":           "chooses the exit code",
	"bench/":                 "is a program",
	"deploy/filecap/main.go": "is a program",
	"internal/nsrun/init.go": "is the first process of a namespace, run by the program's own file",
}
