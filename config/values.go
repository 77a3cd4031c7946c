package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// value is a place in a Config, and the rule by which a node becomes what is
// there.
type value interface {
	// read puts n, the value of key, in its place, or reports why not.
	read(r *reader, path string, key, n *yaml.Node)
	// write is the inverse of read: nil when there is nothing to write.
	write() *yaml.Node
	// place is the pointer into the Config.
	place() any
	// allowed says what may be written, such as "true or false".
	allowed() string
}

// rule reads and writes the text of one T.
type rule[T any] struct {
	// parse's error goes on from the quoted text: "is not a number". It ends
	// the sentence itself if it is an advice, else what is allowed follows.
	parse   func(text string) (T, error)
	format  func(T) string
	allowed string
	tag     string // of the written scalar; "" is !!str, which quotes where YAML needs it
}

// advice is a parse error that says what to write, so that nothing need follow.
type advice string

func (a advice) Error() string { return string(a) }

// readText reads one scalar by the rule. It reports false when it could not.
func (t *rule[T]) readText(r *reader, p position, path string, n *yaml.Node) (v T, ok bool) {
	switch {
	case n.Kind == yaml.AliasNode:
		return v, false // refuseShortcuts has said it
	case isNull(n):
		r.add(p, path, "has no value; use %s, or remove the line", t.allowed)
		return v, false
	case n.Kind != yaml.ScalarNode:
		r.add(p, path, "%s stands where a single value should; use %s", describe(n), t.allowed)
		return v, false
	}
	v, err := t.parse(n.Value)
	if err == nil {
		return v, true
	}
	if full, ok := errors.AsType[advice](err); ok {
		r.add(p, path, "%s %s", quote(n.Value), full)
	} else {
		r.add(p, path, "%s %v; use %s", quote(n.Value), err, t.allowed)
	}
	return v, false
}

func (t *rule[T]) node(v T) *yaml.Node {
	tag := t.tag
	if tag == "" {
		tag = "!!str"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: t.format(v)}
}

// scalar is a field with one value.
type scalar[T comparable] struct {
	to *T
	rule[T]
}

func (s *scalar[T]) place() any      { return s.to }
func (s *scalar[T]) allowed() string { return s.rule.allowed }

func (s *scalar[T]) read(r *reader, path string, key, n *yaml.Node) {
	if v, ok := s.readText(r, at(key), path, n); ok {
		*s.to = v
	}
}

func (s *scalar[T]) write() *yaml.Node {
	var zero T
	if *s.to == zero {
		return nil
	}
	return s.node(*s.to)
}

// list is a field with any number of values, none twice.
type list[T comparable] struct {
	to *[]T
	rule[T]
}

func (l *list[T]) place() any      { return l.to }
func (l *list[T]) allowed() string { return "a list; each item is " + l.rule.allowed }

func (l *list[T]) read(r *reader, path string, key, n *yaml.Node) {
	if isNull(n) {
		return // every item is commented out
	}
	if n.Kind != yaml.SequenceNode {
		r.add(at(key), path, "%s stands where a list should; write [item, item], each item being %s", describe(n), l.rule.allowed)
		return
	}
	first := map[T]int{}
	for i, item := range n.Content {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		r.positions[itemPath] = at(item)
		v, ok := l.readText(r, at(item), itemPath, item)
		if !ok {
			continue
		}
		if line, ok := first[v]; ok {
			r.add(at(item), itemPath, "%s is listed twice, first on line %d; keep one", quote(item.Value), line)
			continue
		}
		first[v] = item.Line
		*l.to = append(*l.to, v)
	}
}

func (l *list[T]) write() *yaml.Node {
	if len(*l.to) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, v := range *l.to {
		n.Content = append(n.Content, l.node(v))
	}
	return n
}

// mapping is a field with pairs of values.
type mapping[K, V comparable] struct {
	to   *map[K]V
	key  rule[K]
	item rule[V]
}

func (m *mapping[K, V]) place() any { return m.to }

func (m *mapping[K, V]) allowed() string {
	return "pairs; each maps " + m.key.allowed + " to " + m.item.allowed
}

func (m *mapping[K, V]) read(r *reader, path string, key, n *yaml.Node) {
	if isNull(n) {
		return // every pair is commented out
	}
	if n.Kind != yaml.MappingNode {
		r.add(at(key), path, "%s stands where pairs should; write one a line, each mapping %s to %s",
			describe(n), m.key.allowed, m.item.allowed)
		return
	}
	first := map[K]int{}
	r.eachPair(path, n, func(k, v *yaml.Node) {
		pairPath := path + "[" + quoteAddress(k.Value) + "]"
		r.positions[pairPath] = at(k)
		from, okFrom := m.key.readText(r, at(k), pairPath, k)
		to, okTo := m.item.readText(r, at(v), pairPath, v)
		if !okFrom || !okTo {
			return
		}
		if line, ok := first[from]; ok {
			r.add(at(k), pairPath, "is mapped twice, first on line %d; keep one", line)
			return
		}
		first[from] = k.Line
		if *m.to == nil {
			*m.to = map[K]V{}
		}
		(*m.to)[from] = to
	})
}

func (m *mapping[K, V]) write() *yaml.Node {
	if len(*m.to) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	byText := func(a, b K) int { return cmpText(m.key.format(a), m.key.format(b)) }
	for _, k := range slices.SortedFunc(maps.Keys(*m.to), byText) {
		n.Content = append(n.Content, m.key.node(k), m.item.node((*m.to)[k]))
	}
	return n
}
