package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// FuzzParse: whatever the file, Parse returns either faults that point into it
// and are safe to print, or a config that Validate accepts and Marshal repeats.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("../examples/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	more, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range append(seeds, more...) {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, test := range faultTests {
		f.Add([]byte(test.src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("fuzz.yaml", src)
		if err != nil {
			checkFaults(t, src, err)
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("Parse accepts what Validate refuses: %v", err)
		}
		checkRoundTrip(t, c)
	})
}

func checkFaults(t *testing.T, src []byte, err error) {
	t.Helper()
	var all *Error
	if !errors.As(err, &all) || len(all.Faults) == 0 || len(all.Faults) > maxFaults+1 {
		t.Fatalf("%v is no *Error with a reasonable number of faults", err)
	}
	lineCount := strings.Count(string(src), "\n") + strings.Count(string(src), "\r") +
		strings.Count(string(src), "\u0085") + strings.Count(string(src), "\u2028") + strings.Count(string(src), "\u2029") + 1
	for _, fault := range all.Faults {
		if fault.Message == "" || fault.Line < 0 || fault.Line > lineCount || (fault.Line > 0) != (fault.Column > 0) {
			t.Errorf("%+v does not point into a file of %d lines", fault, lineCount)
		}
		if strings.ContainsFunc(fault.String(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not safe to print", fault.String())
		}
		if len(fault.String()) > 2000 {
			t.Errorf("a message of %d bytes", len(fault.String()))
		}
	}
}
