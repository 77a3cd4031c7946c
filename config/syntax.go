package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the root of the one document in src, nil when it has none.
func parseYAML(src []byte) (*yaml.Node, []Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxFaults(src, err)
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntaxFaults(src, err)
	default:
		return nil, []Fault{{
			Line: second.Line, Column: second.Column,
			Message: "a second document begins here (---); use one file for each gateway",
		}}
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxFaults says in plain words what yaml.v3 said. Its line is the best there
// is; it gives no column, so the line's first letter is pointed at.
func syntaxFaults(src []byte, err error) []Fault {
	line, message := 1, err.Error()
	if m := syntaxError.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	lines := strings.Split(string(src), "\n")
	if faults := tabFaults(lines); len(faults) > 0 {
		return faults // whatever was said, this is the reason
	}
	line = min(line, len(lines))
	text := lines[line-1]
	column := 1 + len(text) - len(strings.TrimLeft(text, " "))
	return []Fault{{Line: line, Column: column, Message: plainSyntax(message)}}
}

// tabFaults finds the tabs that indent a line. It is asked only about YAML that
// does not parse: in quoted text they are allowed.
func tabFaults(lines []string) []Fault {
	var faults []Fault
	for i, text := range lines {
		trimmed := strings.TrimLeft(text, " \t")
		indent := text[:len(text)-len(trimmed)]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && strings.TrimSpace(trimmed) != "" {
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
		{"did not find expected key", "this does not line up with what is above; indent fields of one block alike, with spaces"},
		{"could not find expected ':'", "a field without a colon; write name: value"},
		{"did not find expected '-' indicator", "this does not line up with the list above; indent its items alike"},
		{"did not find expected ',' or ']'", "a list that begins with [ is not closed; separate its items with commas, and end it with ]"},
		{"did not find expected ',' or '}'", "a block that begins with { is not closed; separate its fields with commas, and end it with }"},
		{"found unexpected end of stream", "a quoted text that begins here is not closed; end it with the same quote"},
		{"found unknown escape character", "an unknown \\ escape in double quotes; use single quotes to have \\ mean itself"},
		{"unknown anchor", "aliases (*name) are not supported; write the value out, or quote text that begins with *"},
		{"control characters are not allowed", "the file holds control characters; is it a text file?"},
		{"invalid", "the file is not UTF-8 text; save it as UTF-8"},
	} {
		if strings.Contains(message, known[0]) {
			return known[1]
		}
	}
	return "this is not valid YAML: " + message
}
