package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// TestImports compares each package's imports with its row of the table.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		row, ok := table[name]
		if !ok {
			t.Errorf("package %s is in no row of the table in internal/archtest/table_test.go: "+
				"add one that says what it may import and why", name)
			continue
		}
		for _, path := range p.Imports {
			if !row.allows(path) {
				t.Errorf("%s imports %s, which its row does not allow: %s", name, path, row.why)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if !row.allowsInTests(name, path) {
				t.Errorf("a test of %s imports %s, which its row does not allow: %s", name, path, row.why)
			}
		}
	}
}

// allows reports whether a package with this row may import path.
func (r row) allows(path string) bool {
	if name, ours := strings.CutPrefix(path, module+"/"); ours {
		return slices.Contains(r.ours, name) || slices.Contains(r.ours, anything)
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // standard library
	}
	return slices.ContainsFunc(append(r.theirs, sys), func(prefix string) bool {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	})
}

// allowsInTests reports whether the tests of the package called name, whose row
// this is, may import path. Third-party modules are free there.
func (r row) allowsInTests(name, path string) bool {
	ours, ok := strings.CutPrefix(path, module+"/")
	return !ok || ours == name || r.allows(path) ||
		slices.Contains(testHelpers, ours) || slices.Contains(r.tests, ours)
}

// TestTable checks that the rows themselves keep the promises that are too
// important to be given up by an edit of one line.
func TestTable(t *testing.T) {
	t.Parallel()
	for name, row := range table {
		stack := name == "netstack" || strings.HasPrefix(name, "netstack/")
		if row.allows(gvisor+"/pkg/tcpip") && !stack && name != "bench/baseline" {
			t.Errorf("%s may import gVisor: it promises no stable interface, so only netstack and epollbridge know it, and what they are measured against", name)
		}
		if row.allows(prometheus+"/client_golang") && name != "metrics" {
			t.Errorf("%s may import client_golang: one private registry, in metrics", name)
		}
		if stack && row.allows(module+"/proxy") || name == "proxy" && row.allows(module+"/netstack") {
			t.Errorf("%s: stack and proxy meet in flow, not in each other", name)
		}
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e",
		"-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}
