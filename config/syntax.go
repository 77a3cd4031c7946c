package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the root of the one document in src, nil when it has none.
func parseYAML(src []byte) (*yaml.Node, []Fault) {
	if !utf8.Valid(src) {
		return nil, []Fault{badText(src)}
	}
	doc, second, err := decode(src)
	switch {
	case err != nil:
		return nil, syntaxFaults(src, err)
	case second != nil:
		return nil, []Fault{{
			Line: second.Line, Column: second.Column,
			Message: "a second document begins here (---); use one file for each gateway",
		}}
	case doc == nil || len(doc.Content) == 0:
		return nil, nil
	}
	return doc.Content[0], nil
}

// decode returns the first two documents in src, nil for each there is not.
func decode(src []byte) (first, second *yaml.Node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var docs [2]yaml.Node
	for i := range docs {
		if err := dec.Decode(&docs[i]); err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
	}
	if !docs[0].IsZero() {
		first = &docs[0]
	}
	if !docs[1].IsZero() {
		second = &docs[1]
	}
	return first, second, nil
}

// badText points at the first byte that is not UTF-8.
func badText(src []byte) Fault {
	good := 0
	for good < len(src) {
		r, n := utf8.DecodeRune(src[good:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		good += n
	}
	line := 1 + bytes.Count(src[:good], []byte("\n"))
	column := good - bytes.LastIndexByte(src[:good], '\n')
	return Fault{Line: line, Column: column, Message: "this is not UTF-8 text; is it a config? If so, save it as UTF-8"}
}

// syntaxFaults says in plain words what yaml.v3 said, and where.
func syntaxFaults(src []byte, err error) []Fault {
	lines := bytes.SplitAfter(src, []byte("\n"))
	if faults := tabFaults(lines); len(faults) > 0 {
		return faults // whatever was said, this is the reason
	}
	line := failingLine(src, lines, err)
	text := lines[line-1]
	column := 1 + len(text) - len(bytes.TrimLeft(text, " "))
	message := plainSyntax(complaint(err))
	if message == misaligned && closesTooMuch(text) {
		message = "a } or ] too many; remove it"
	}
	return []Fault{{Line: line, Column: column, Message: message}}
}

// closesTooMuch reports whether a line ends more blocks and lists in brackets than it
// begins, which yaml.v3 takes for a field in the wrong place.
func closesTooMuch(text []byte) bool {
	return bytes.Count(text, []byte("}")) > bytes.Count(text, []byte("{")) || bytes.Count(text, []byte("]")) > bytes.Count(text, []byte("["))
}

const misaligned = "this does not line up with what is above; indent fields of one block alike, with spaces"

var syntaxError = regexp.MustCompile(`^yaml: (?:line \d+: )?`)

// complaint is yaml.v3's message without its line.
func complaint(err error) string {
	return syntaxError.ReplaceAllString(err.Error(), "")
}

// failingLine finds the line, from 1, that brings err about. yaml.v3 often names
// the first line of the block around it, or none; but it reads from the front, so
// the file cut off after a line gives the same complaint from the failing line on.
func failingLine(src []byte, lines [][]byte, err error) int {
	want := complaint(err)
	ends := make([]int, len(lines)) // of each line, in src
	end := 0
	for i, l := range lines {
		end += len(l)
		ends[i] = end
	}
	line := 1 + sort.Search(len(lines)-1, func(i int) bool {
		_, _, err := decode(src[:ends[i]])
		return err != nil && complaint(err) == want
	})
	if line > 1 && len(lines[line-1]) == 0 {
		line-- // the end of the file: point at what is there
	}
	return line
}

// tabFaults finds the tabs that indent a line. It is asked only about YAML that
// does not parse: in quoted text they are allowed.
func tabFaults(lines [][]byte) []Fault {
	var faults []Fault
	for i, text := range lines {
		trimmed := bytes.TrimLeft(text, " \t")
		indent := text[:len(text)-len(trimmed)]
		if tab := bytes.IndexByte(indent, '\t'); tab >= 0 && len(bytes.TrimSpace(trimmed)) > 0 {
			faults = append(faults, Fault{
				Line: i + 1, Column: tab + 1,
				Message: "a tab indents this line; YAML takes spaces only",
			})
		}
	}
	return faults
}

// plainSyntax says what to do about the usual mistakes.
func plainSyntax(message string) string {
	for _, known := range [][2]string{
		{"mapping values are not allowed", "a colon is not expected here; indent fields of one block alike, and quote text that holds a colon and a space"},
		{"did not find expected key", misaligned},
		{"could not find expected ':'", "a field without a colon; write name: value"},
		{"did not find expected '-' indicator", "this does not line up with the list above; indent its items alike"},
		{"did not find expected ',' or ']'", "a list that begins with [ is not closed; separate its items with commas, and end it with ]"},
		{"did not find expected ',' or '}'", "a block that begins with { is not closed; separate its fields with commas, and end it with }"},
		{"found unexpected end of stream", "a quoted text that begins here is not closed; end it with the same quote"},
		{"found unknown escape character", "an unknown \\ escape in double quotes; use single quotes to have \\ mean itself"},
		{"unknown anchor", "aliases (*name) are not supported; write the value out, or quote text that begins with *"},
		{"control characters are not allowed", "the file holds control characters; is it a text file?"},
		{"cannot start any token", "text may not begin with @, ` or % here; quote it"},
		{"did not find expected node content", "a value that YAML does not read as text here; quote it"},
		{"incompatible YAML document", "the %YAML line is not needed; remove it"},
	} {
		if strings.Contains(message, known[0]) {
			return known[1]
		}
	}
	return "this is not valid YAML: " + message
}
