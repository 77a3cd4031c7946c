package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxFaults bounds what is reported: a file of another kind would otherwise give
// a fault a line.
const maxFaults = 100

// Fault is one thing wrong with a config.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 when the file as a whole is meant
	Column  int    `json:"column,omitempty"` // from 1; valid iff Line is not 0
	Field   string `json:"field,omitempty"`  // such as device.mtu; "" when no field is meant
	Message string `json:"message"`          // what was found, and what is allowed
}

// String gives the fault as "direct.yaml:7:3: device.mtu: ...", which editors and
// terminals make a link.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if f.Field != "" {
		b.WriteString(": ")
		b.WriteString(f.Field)
	}
	b.WriteString(": ")
	b.WriteString(f.Message)
	return b.String()
}

// Error holds every fault of a config, in the order of the file. There is at
// least one.
type Error struct {
	Faults []Fault
	cause  error // why the file could not be read, nil otherwise
}

// Error gives one fault a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns why the file could not be read, such as fs.ErrNotExist; nil when
// it could.
func (e *Error) Unwrap() error { return e.cause }

// asError returns nil for no faults.
func asError(file string, faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(faults) - maxFaults; more > 0 {
		faults = append(faults[:maxFaults], Fault{Message: fmt.Sprintf("and %d more faults", more)})
	}
	for i := range faults {
		faults[i].File = file
	}
	return &Error{Faults: faults}
}
