package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// deviceEnv chooses the device that every test of the suite runs over, as words:
// tap, queues=2, all-off, or an offload that is off (no-tso4).
const deviceEnv = "TUNGATE_E2E_DEVICE"

// offloads are the config's names of them.
func offloads() []string { return []string{"vnet_hdr", "checksum", "tso4", "tso6", "ecn", "uso"} }

// deviceChosen reports whether the suite runs over a device that was asked for, in
// addition to its run over the usual one.
func deviceChosen() bool { return os.Getenv(deviceEnv) != "" }

// overTAP reports whether the suite runs over a TAP.
func overTAP() bool { return strings.Contains(os.Getenv(deviceEnv), "tap") }

// The gateway's own addresses on a TAP, in the networks of the client's own on it.
const (
	lanV4  = "198.19.255.254"
	lanV6  = "fd00:18::ffff"
	lanMAC = "02:00:5e:00:53:01"
)

// deviceFields are the fields of a config that make a device of these words.
func deviceFields(words string) (fields, error) {
	set := fields{}
	for w := range strings.FieldsSeq(words) {
		switch name, value, _ := strings.Cut(w, "="); {
		case w == "tun":
		case w == "tap":
			// The client's kernel is the guest. To it every address is on the link.
			maps.Copy(set, fields{
				"device.kind": "tap", "lan.mac": lanMAC, "lan.proxy": "all",
				"lan.addresses": []any{lanV4 + "/15", lanV6 + "/64"},
				"lan.on_link":   []any{"192.0.2.0/24", "fd00:2::/64"},
			})
		case name == "queues":
			set["device.queues"] = value
		case w == "all-off":
			for _, o := range offloads() {
				set["device.offload."+o] = "off"
			}
		case strings.HasPrefix(w, "no-"):
			set["device.offload."+strings.TrimPrefix(w, "no-")] = "off"
		default:
			return nil, fmt.Errorf("%s: %q is not one of tun, tap, queues=N, all-off, no-OFFLOAD", deviceEnv, w)
		}
	}
	return set, nil
}

// superframes reports whether TCP of a family crosses the device in superframes.
func superframes(f family) bool {
	tso := "no-tso4"
	if f.server.Is6() {
		tso = "no-tso6"
	}
	words := strings.Fields(os.Getenv(deviceEnv))
	return !slices.ContainsFunc(words, func(w string) bool {
		return w == "all-off" || w == "no-vnet_hdr" || w == "no-checksum" || w == tso
	})
}
