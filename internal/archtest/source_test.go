package archtest

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the module's directory; go test runs in the package's own.
const root = "../.."

// A file or function that is longer is two.
const (
	maxFileLines     = 500
	maxFunctionLines = 80
	maxLoopLines     = 100 // a pipeline in stages, for the functions in loops
)

var loops = []string{"rxLoop", "txLoop", "Wait"}

// notes are words for work that was put off. The issue tracker is the place.
var notes = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`)

// pragmas are compiler directives that hide a fault or tie us to one Go version.
var pragmas = regexp.MustCompile(`(?m)^//go:(norace|linkname)\b`)

func TestSourceFormatted(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		formatted, err := format.Source(f.src)
		if err != nil {
			t.Errorf("%s: %v", f.path, err)
		} else if !bytes.Equal(formatted, f.src) {
			t.Errorf("%s is not formatted: make fmt", f.path)
		}
	}
}

func TestSourceSize(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		if f.test() {
			continue
		}
		if n := bytes.Count(f.src, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: it is about more than one thing", f.path, n, maxFileLines)
		}
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			limit := maxFunctionLines
			if slices.Contains(loops, fn.Name.Name) {
				limit = maxLoopLines
			}
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > limit {
				t.Errorf("%s:%d: %s has %d lines, more than %d", f.path, f.line(fn.Pos()), fn.Name.Name, n, limit)
			}
		}
	}
}

func TestSourceHasNoInit(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.test() {
				t.Errorf("%s:%d: init runs in every program that imports the package: give main a function to call",
					f.path, f.line(fn.Pos()))
			}
		}
	}
}

// TestSourceExits: only a main function may end the process, or what others
// deferred (devices, rules, namespaces) stays behind.
func TestSourceExits(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		if f.test() || mayExit(f.path) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok || id.Obj != nil {
				return true
			}
			name := id.Name + "." + sel.Sel.Name
			if name == "os.Exit" || strings.HasPrefix(name, "log.Fatal") || strings.HasPrefix(name, "log.Panic") {
				t.Errorf("%s:%d: %s: return an error; cmd/gateway chooses the exit code", f.path, f.line(n.Pos()), name)
			}
			return true
		})
	}
}

func mayExit(path string) bool {
	for allowed := range exits {
		if path == allowed || strings.HasSuffix(allowed, "/") && strings.HasPrefix(path, allowed) {
			return true
		}
	}
	return false
}

func TestSourceHasNoNotes(t *testing.T) {
	t.Parallel()
	kinds := []string{".go", ".sh", ".yml", ".yaml", ".md", ".service", "Makefile", "Dockerfile"}
	walk(t, func(path string) {
		if !slices.ContainsFunc(kinds, func(s string) bool { return strings.HasSuffix(path, s) }) {
			return
		}
		src := read(t, path)
		if at := notes.FindIndex(src); at != nil {
			t.Errorf("%s:%d: work put off belongs to the issue tracker", path, 1+bytes.Count(src[:at[0]], []byte("\n")))
		}
		if at := pragmas.Find(src); at != nil && strings.HasSuffix(path, ".go") {
			t.Errorf("%s: %s hides a race or ties us to one Go version", path, at)
		}
	})
}

// file is one parsed Go file of the module.
type file struct {
	path string // from the module's root
	src  []byte
	ast  *ast.File
	set  *token.FileSet
}

func (f file) test() bool             { return strings.HasSuffix(f.path, "_test.go") }
func (f file) line(pos token.Pos) int { return f.set.Position(pos).Line }

func goFiles(t *testing.T) []file {
	t.Helper()
	var files []file
	walk(t, func(path string) {
		if filepath.Ext(path) != ".go" {
			return
		}
		f := file{path: path, src: read(t, path), set: token.NewFileSet()}
		var err error
		if f.ast, err = parser.ParseFile(f.set, path, f.src, parser.ParseComments); err != nil {
			t.Errorf("%v", err)
			return
		}
		files = append(files, f)
	})
	return files
}

// walk calls visit for every file of the module, by its path from the root.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	tree := os.DirFS(root)
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "tools", "testdata", "vendor"}, d.Name()):
			return fs.SkipDir
		case d.Type().IsRegular():
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return src
}
