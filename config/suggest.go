package config

import (
	"slices"
	"strings"
)

// suggest ends the sentence about an unknown field: with the field that was
// probably meant, else with what there is.
func (s *section) suggest(unknown string) string {
	if name := nearest(unknown, s.names); name != "" {
		return "did you mean " + name + "?"
	}
	if path := s.schema.elsewhere(unknown); path != "" {
		return "did you mean " + path + "?"
	}
	return "use one of " + strings.Join(s.names, ", ")
}

// elsewhere finds a field or section of that name under another section.
func (s *schema) elsewhere(name string) string {
	for _, path := range s.paths() {
		if path == name || strings.HasSuffix(path, "."+name) {
			return path
		}
	}
	return ""
}

// nearest returns the name a typing mistake away from word, "" when none is.
func nearest(word string, names []string) string {
	const longest = 40 // no name is longer, and the distance costs the product of the lengths
	if len(word) > longest {
		return ""
	}
	best, bestDistance := "", longest
	for _, name := range names {
		d := distance(plain(word), plain(name))
		if limit := (max(len(word), len(name)) + 2) / 3; d <= limit && d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// plain takes away how names are written: maxHalfOpen and max-half-open are
// max_half_open.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, remove or change from a to b
// (Levenshtein), in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// firstNames lists some of a section's fields for a message.
func (s *section) firstNames() string {
	names := slices.Clone(s.names[:min(3, len(s.names))])
	for i := range names {
		names[i] = joinPath(s.path, names[i])
	}
	return strings.Join(names, ", ")
}
