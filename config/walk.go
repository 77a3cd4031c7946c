package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// position is a place in the file, both from 1.
type position struct{ line, column int }

func at(n *yaml.Node) position { return position{n.Line, n.Column} }

// reader walks nodes and schema together and collects what is wrong.
type reader struct {
	faults    []Fault
	positions map[string]position // of every field read, for what Validate says later
}

func (r *reader) add(p position, path, format string, args ...any) {
	r.faults = append(r.faults, Fault{Line: p.line, Column: p.column, Field: path, Message: fmt.Sprintf(format, args...)})
}

// addProblem puts a problem on the line of its field; of the nearest section that
// the file has when it does not have the field.
func (r *reader) addProblem(p problem) {
	for _, f := range r.faults {
		if f.Field == p.path || strings.HasPrefix(f.Field, p.path+"[") || strings.HasPrefix(p.path, f.Field+"[") {
			return // the value was refused already; this is about what stood in for it
		}
	}
	where, path := position{1, 1}, p.path
	for path != "" {
		if found, ok := r.positions[path]; ok {
			where = found
			break
		}
		path = parentPath(path)
	}
	r.add(where, p.path, "%s", p.message)
}

// parentPath cuts an index or the last name off: a.b[0] is in a.b, a.b in a.
func parentPath(path string) string {
	if before, _, ok := strings.Cut(path, "["); ok {
		return before
	}
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i]
	}
	return ""
}

// refuseShortcuts reports what YAML has beyond values, wherever it stands.
func (r *reader) refuseShortcuts(n *yaml.Node) {
	if n == nil {
		return
	}
	switch {
	case n.Kind == yaml.AliasNode:
		r.add(at(n), "", "aliases (%.32q) are not supported; write the value out", n.Value)
		return
	case n.Anchor != "":
		r.add(at(n), "", "anchors (%.32q) are not supported; remove it, and write the value out where it is used", n.Anchor)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!merge":
		r.add(at(n), "", "merges (<<) are not supported; write the fields out")
	case n.Style&yaml.TaggedStyle != 0:
		r.add(at(n), "", "tags (%.32q) are not supported; remove it", n.Tag)
	}
	for _, child := range n.Content {
		r.refuseShortcuts(child)
	}
}

// readSection reads a block of fields. A block whose every line is commented out
// is a null in YAML, and means as little.
func (r *reader) readSection(s *section, n *yaml.Node) {
	if n == nil || n.Kind == yaml.AliasNode || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.add(at(n), s.path, "%s stands where a block of fields should; use fields such as %s", describe(n), s.firstNames())
		return
	}
	r.eachPair(s.path, n, func(key, value *yaml.Node) {
		child, ok := s.children[key.Value]
		if !ok {
			r.add(at(key), joinPath(s.path, quoteKey(key.Value)), "is not a known field; %s", s.suggest(key.Value))
			return
		}
		if child.section != nil {
			r.positions[child.section.path] = at(key)
			r.readSection(child.section, value)
			return
		}
		r.positions[child.field.path] = at(key)
		if value.Kind != yaml.AliasNode {
			child.field.value.read(r, child.field.path, key, value)
		}
	})
}

// eachPair calls yield for the pairs of a mapping whose key is a plain word that
// did not come before.
func (r *reader) eachPair(path string, n *yaml.Node, yield func(key, value *yaml.Node)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind == yaml.AliasNode, key.Tag == "!!merge":
			continue // refuseShortcuts has said it
		case key.Kind != yaml.ScalarNode:
			r.add(at(key), path, "%s stands where a field's name should; write name: value", describe(key))
			continue
		}
		if line, ok := first[key.Value]; ok {
			r.add(at(key), joinPath(path, quoteKey(key.Value)), "is set twice, first on line %d; keep one", line)
			continue
		}
		first[key.Value] = key.Line
		yield(key, value)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// describe names a node for a message.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a block of fields"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	return quote(n.Value)
}

// quote shows what the file holds without letting it flood or garble a terminal.
func quote(s string) string {
	const limit = 64
	if utf8.RuneCountInString(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%.*q...", limit, s)
}

// quoteKey leaves an ordinary key as it is.
func quoteKey(s string) string {
	const ordinary = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if s != "" && len(s) <= 32 && strings.Trim(s, ordinary) == "" {
		return s
	}
	return quote(s)
}

func joinPath(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}
