package config

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// prefix and addrPort shorten the table.
type (
	prefix   = netip.Prefix
	addrPort = netip.AddrPort
)

// Marshal writes c as a file that Parse reads back to an equal Config. Fields at
// their zero value, which is their default, are left out.
func Marshal(c *Config) ([]byte, error) {
	root := newSchema(c).root.write()
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (s *section) write() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, name := range s.names {
		var v *yaml.Node
		if c := s.children[name]; c.section == nil {
			v = c.field.value.write()
		} else if v = c.section.write(); len(v.Content) == 0 {
			v = nil
		}
		if v != nil {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, v)
		}
	}
	return n
}

// paths lists every field, and every section before its first field.
func (s *schema) paths() []string {
	var all []string
	seen := map[string]bool{}
	for _, f := range s.rows {
		for i := range len(f.path) {
			if sectionPath := f.path[:i]; f.path[i] == '.' && !seen[sectionPath] {
				seen[sectionPath] = true
				all = append(all, sectionPath)
			}
		}
		all = append(all, f.path)
	}
	return all
}

// short writes a duration as people do: 10s, not 0m10s, and 2h, not 2h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
