package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/config.md instead of comparing it")

const (
	docsPath  = "../docs/config.md"
	docsBegin = "<!-- fields: made from config/schema.go by `go test ./config -run Docs -update` -->\n"
	docsEnd   = "<!-- end of fields -->\n"
)

// TestDocs holds docs/config.md against the table.
func TestDocs(t *testing.T) {
	src, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(src), docsBegin)
	_, after, ok2 := strings.Cut(rest, docsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks between which the fields stand:\n%s%s", docsPath, docsBegin, docsEnd)
	}
	want := before + docsBegin + fieldDocs() + docsEnd + after
	if want == string(src) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what config/schema.go says; run go test ./config -run Docs -update", docsPath)
	}
	if err := os.WriteFile(docsPath, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fieldDocs is a table of fields for each section.
func fieldDocs() string {
	var b strings.Builder
	section := "-"
	for _, f := range fields(Default()) {
		name := f.path[strings.LastIndexByte(f.path, '.')+1:]
		if s := strings.TrimSuffix(strings.TrimSuffix(f.path, name), "."); s != section {
			section = s
			title := "`" + s + "`"
			if s == "" {
				title = "Top level"
			}
			fmt.Fprintf(&b, "\n### %s\n\n| field | left out | allowed | meaning |\n|---|---|---|---|\n", title)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, f.unset, f.value.allowed(), f.doc)
	}
	b.WriteString("\n")
	return b.String()
}

func TestRowsAreComplete(t *testing.T) {
	for _, f := range fields(Default()) {
		if f.unset == "" || !strings.HasSuffix(f.doc, ".") || f.value.allowed() == "" {
			t.Errorf("%s: a row needs what leaving it out means, what is allowed and a sentence", f.path)
		}
		if strings.ContainsAny(f.unset+f.doc+f.value.allowed(), "|\n") {
			t.Errorf("%s: | and newlines break the table of docs/config.md", f.path)
		}
	}
}
