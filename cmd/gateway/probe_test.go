package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tungate/tungate/tundev"
)

// sample is of a kernel without USO, for a device that exists.
var sample = tundev.Report{
	Kernel: "5.15.0", OK: true,
	Interface: &tundev.Interface{Name: "tap7", Kind: "tap", MTU: 1400, Up: true, MultiQueue: true},
	Features: []tundev.Feature{
		{Name: "attach to tap7", OK: true, Detail: "this user may"},
		{Name: "uso", Ethtool: "tx-udp-segmentation", Detail: "the kernel refuses it (invalid argument): it needs Linux 6.2"},
	},
	Configured: &tundev.Configured{Kind: "tap", MTU: 1400, Queues: 1, Offloads: "checksum tso4", Notes: []string{"the kernel refuses device.offload.uso (invalid argument), so it is off"}},
}

// TestProbeTable says first what matters.
func TestProbeTable(t *testing.T) {
	broken := sample
	broken.OK, broken.Interface = false, nil
	broken.Configured = &tundev.Configured{Error: "device tap7 is in use (device or resource busy): end the program that holds it"}
	for _, c := range []struct {
		r    tundev.Report
		want string
	}{
		{sample, `kernel 5.15.0: tap tap7 can be served, but for: uso

tap7 is a tap, up, MTU 1400, made for several queues

attach to tap7  yes  this user may
uso             no   the kernel refuses it (invalid argument): it needs Linux 6.2

a gateway gets: tap, 1 queue, MTU 1400, offloads checksum tso4
note: the kernel refuses device.offload.uso (invalid argument), so it is off
`},
		{broken, `kernel 5.15.0: device tap7 is in use (device or resource busy): end the program that holds it

attach to tap7  yes  this user may
uso             no   the kernel refuses it (invalid argument): it needs Linux 6.2
`},
	} {
		var b strings.Builder
		if err := showReport(&b, c.r); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("printed\n%s\nwant\n%s", b.String(), c.want)
		}
	}
}

// TestProbeJSON has the same in fields that scripts may rely on.
func TestProbeJSON(t *testing.T) {
	var b strings.Builder
	if err := encodeReport(&b, sample); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Kernel    string
		OK        bool
		Interface struct {
			Kind       string
			MultiQueue bool `json:"multi_queue"`
		}
		Features []struct {
			Name, Ethtool, Detail string
			OK                    bool
		}
		Configured struct {
			Queues   int
			Offloads string
			Notes    []string
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if !got.OK || !got.Interface.MultiQueue || got.Features[1].Name != "uso" || got.Features[1].OK || got.Features[1].Ethtool == "" ||
		got.Configured.Queues != 1 || len(got.Configured.Notes) != 1 {
		t.Errorf("%+v\n%s", got, b.String())
	}
}
