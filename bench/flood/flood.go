package main

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tungate/tungate/internal/testutil"
)

// kind is one sort of flood.
type kind struct {
	name  string
	flags []string // of hping3
	rate  string   // in words
	// strangers says that no two clients have the same address, so that nobody
	// has been served before.
	strangers bool
	six       bool // over IPv6, by this program itself
}

// floods are all of them.
func floods() []kind {
	const trickle = "20000" // microseconds between two: 50 a second
	return []kind{
		{name: "syn", flags: []string{"-S", "--flood"}, rate: "full"},
		{name: "strangers", flags: []string{"-S", "--flood"}, rate: "full", strangers: true},
		{name: "syn6", rate: "full", six: true},
		{name: "trickle", flags: []string{"-S", "-i", "u" + trickle}, rate: "50/s"},
		{name: "ack", flags: []string{"-A", "--flood"}, rate: "full"},
		{name: "rst", flags: []string{"-R", "--flood"}, rate: "full"},
		{name: "fin", flags: []string{"-F", "--flood"}, rate: "full"},
		{name: "data", flags: []string{"-A", "-P", "-d", "512", "--flood"}, rate: "full"},
	}
}

// strangerNet is where strangers' addresses are: all of it is the client namespace's.
var strangerNet = netip.MustParsePrefix("198.18.64.0/18")

// spoofed is how many sources a flood has: all of 198.19.0.0/20.
const spoofed = 4096

// floodSource is what hping3 is given for a source, so that the rule can tell its
// packets from others.
const floodSource = "198.19.255.1"

// spoof gives each packet of hping3 a source of its own, at random.
func spoof(ns *testutil.Namespace) error {
	var b strings.Builder
	b.WriteString("table ip flood { chain out { type filter hook output priority 0;\n")
	fmt.Fprintf(&b, "ip saddr %s ip saddr set numgen random mod %d map {", floodSource, spoofed)
	for i := range spoofed {
		fmt.Fprintf(&b, " %d : 198.19.%d.%d,", i, i>>8, i&0xff)
	}
	b.WriteString(" }\n}\n}\n")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if _, stderr, err := ns.Run(10*time.Second, cmd); err != nil {
		return fmt.Errorf("nft: %w: %s", err, stderr)
	}
	return nil
}

// start starts the flood; it goes on until it is stopped.
func (k kind) start(ns *testutil.Namespace, self, addr, port string) (*testutil.Process, error) {
	if k.six {
		return ns.Start(exec.Command(self, "-role", "sender", "-addr", net.JoinHostPort(addr, port)))
	}
	args := append([]string{"-q", "-n", "-I", testutil.TunName, "-a", floodSource, "-p", port}, k.flags...)
	return ns.Start(exec.Command("hping3", append(args, addr)...))
}

// transmitted finds hping3's own count of what it sent.
var transmitted = regexp.MustCompile(`(\d+) packets transmitted`)

// stop ends the flood and says how many packets it sent.
func stop(p *testutil.Process) (int, error) {
	_ = p.Signal(syscall.SIGINT)
	err := p.Wait(5 * time.Second) // hping3 ends with 1 when nothing came back
	text := p.Stdout.String() + p.Stderr.String()
	m := transmitted.FindStringSubmatch(text)
	if m == nil {
		p.Kill()
		return 0, fmt.Errorf("hping3: %w: %s", err, strings.TrimSpace(text))
	}
	return strconv.Atoi(m[1])
}
