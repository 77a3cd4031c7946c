package main

import (
	"encoding/hex"
	"testing"
)

// TestNetAdmin compares with what `setcap cap_net_admin+ep` of libcap writes.
func TestNetAdmin(t *testing.T) {
	t.Parallel()
	const want = "01000002" + // revision 2, effective
		"00100000" + "00000000" + // low words: permitted 1<<12, inheritable
		"00000000" + "00000000" // high words
	if got := hex.EncodeToString(netAdmin()); got != want {
		t.Errorf("attribute is %s, want %s", got, want)
	}
}
