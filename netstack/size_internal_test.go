package netstack

import (
	"reflect"
	"testing"
)

// TestConnSize: there is one for each of a million connections, and Go's next size of
// memory is 32 bytes more.
func TestConnSize(t *testing.T) {
	if n := reflect.TypeFor[conn]().Size(); n > 288 {
		t.Errorf("%d bytes, want 288 at most", n)
	}
}
