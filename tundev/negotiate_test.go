package tundev

import (
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel is a TUNSETOFFLOAD that knows some bits, with Linux's rules.
type kernel struct{ knows, set int }

func (k *kernel) setOffload(bits int) error {
	tcp, uso := bits&(bitsTSO4|bitsTSO6), bits&bitsUSO
	if bits&^k.knows != 0 || tcp|uso != 0 && bits&bitsChecksum == 0 || uso != 0 && uso != bitsUSO || bits&bitsECN != 0 && tcp == 0 {
		return unix.EINVAL
	}
	k.set = bits
	return nil
}

// TestNegotiate finds on every kernel the largest set that each config allows.
func TestNegotiate(t *testing.T) {
	all := []int{bitsChecksum, bitsTSO4, bitsTSO6, bitsECN, bitsUSO}
	for knows := range 1 << len(all) {
		k := kernel{set: -1}
		for i, b := range all {
			if knows>>i&1 != 0 {
				k.knows |= b
			}
		}
		for range 20 {
			checkNegotiation(t, k, Offload{
				Checksum: Mode(rand.N(3)), TSO4: Mode(rand.N(3)), TSO6: Mode(rand.N(3)), ECN: Mode(rand.N(3)), USO: Mode(rand.N(3)),
			})
		}
	}
}

func checkNegotiation(t *testing.T, k kernel, o Offload) {
	t.Helper()
	if len(o.validate()) != 0 {
		return
	}
	want, insisted := 0, ""
	for _, s := range o.switches() {
		ok := s.mode != Off && k.knows&s.bits != 0 && (s.needs == 0 || want&s.needs != 0)
		if ok {
			want |= s.bits
		} else if s.mode == On && insisted == "" {
			insisted = s.name
		}
	}
	f, notes, err := negotiate(o, k.setOffload)
	if insisted != "" {
		if err == nil || !strings.Contains(err.Error(), "device.offload."+insisted+" ") {
			t.Errorf("kernel %#x, %+v: %v, want an error that names %s", k.knows, o, err, insisted)
		}
		return
	}
	if err != nil || f != featuresOf(want) || k.set != want {
		t.Errorf("kernel %#x, %+v: %+v, set to %#x, %v; want %#x", k.knows, o, f, k.set, err, want)
	}
	have := 0
	for _, s := range o.switches() {
		there := s.needs == 0 || have&s.needs != 0
		have |= s.bits & want
		noted := strings.Contains(strings.Join(notes, "\n"), "device.offload."+s.name+" ")
		if refused := s.mode == Auto && there && want&s.bits == 0; refused != noted {
			t.Errorf("kernel %#x, %+v: %s refused and noted: %v %v; %q", k.knows, o, s.name, refused, noted, notes)
		}
	}
}

// TestNegotiateRefused: a kernel that takes nothing at all is told of.
func TestNegotiateRefused(t *testing.T) {
	_, _, err := negotiate(Offload{}, func(int) error { return unix.EPERM })
	if err == nil || !strings.Contains(err.Error(), "vnet_hdr to off") {
		t.Error(err)
	}
}
