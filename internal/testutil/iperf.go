package testutil

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// iperfPort is the port of iperf3's server. Every run has a server of its own, so
// that one left waiting by a stalled run does not spoil the next.
const iperfPort = "5201"

// IPerf is one run of iperf3 between two namespaces.
type IPerf struct {
	Server, Client *Namespace
	Addr           netip.Addr // of the server
	Seconds        int
	Streams        string
	Down           bool          // the server sends
	Grace          time.Duration // beyond Seconds
}

// IPerfResult is what arrived.
type IPerfResult struct {
	Bytes         float64
	BitsPerSecond float64
	Retransmits   float64 // of the sender, when it is a kernel's
}

// Run runs it.
func (p IPerf) Run() (IPerfResult, error) {
	var res IPerfResult
	server, err := p.Server.Start(exec.Command("iperf3", "--server", "--one-off", "--forceflush", "--port", iperfPort))
	if err != nil {
		return res, err
	}
	defer server.Kill()
	err = Poll(p.Grace, func() error {
		if !server.Alive() || !strings.Contains(server.Stdout.String(), "listening") {
			return fmt.Errorf("iperf3 server: %s%s", server.Stdout, server.Stderr)
		}
		return nil
	})
	if err != nil {
		return res, err
	}
	args := []string{
		"--client", p.Addr.String(), "--port", iperfPort, "--json",
		"--time", strconv.Itoa(p.Seconds), "--parallel", p.Streams,
	}
	if p.Down {
		args = append(args, "--reverse")
	}
	stdout, stderr, err := p.Client.Run(time.Duration(p.Seconds)*time.Second+p.Grace, exec.Command("iperf3", args...))
	return parseIPerf(stdout, stderr, err)
}

// parseIPerf reads iperf3's report; its own error, where it has one, is the best.
func parseIPerf(stdout, stderr string, err error) (IPerfResult, error) {
	var report struct {
		Error string
		End   struct {
			SumSent     struct{ Retransmits float64 } `json:"sum_sent"`
			SumReceived struct {
				Bytes         float64
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	jerr := json.Unmarshal([]byte(stdout), &report)
	switch {
	case report.Error != "":
		return IPerfResult{}, fmt.Errorf("iperf3: %s", report.Error)
	case err != nil:
		return IPerfResult{}, fmt.Errorf("iperf3: %w %s", err, stderr)
	case jerr != nil:
		return IPerfResult{}, fmt.Errorf("iperf3: %w", jerr)
	}
	r := report.End.SumReceived
	if r.Bytes == 0 {
		return IPerfResult{}, errors.New("iperf3: no byte arrived")
	}
	return IPerfResult{r.Bytes, r.BitsPerSecond, report.End.SumSent.Retransmits}, nil
}
