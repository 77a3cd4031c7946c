// Package config turns a YAML file into the Options of every package.
//
// # Theory of operation
//
// One table (schema.go) has a row for each field: its path, where its value goes,
// what is allowed, what leaving it out means. The reader, the writer ([Marshal]),
// the messages and docs/config.md all come from that table, and a test walks the
// Options structs by reflection and asks for a row for every field.
//
// [Parse] works in three steps and none of them stops at the first fault:
//
//  1. yaml.v3 parses the text into nodes that know their line and column. Only
//     broken YAML ends here, since nothing can be read past it.
//  2. A walk over nodes and table together reads each value with the field's own
//     rule, and reports unknown, repeated and misshapen fields.
//  3. Each section's Validate judges the values as a whole. Its messages begin
//     with the field's path, which leads back to the line it stands on. What is
//     said about a field that step 2 refused is left out: it would be about a
//     value nobody wrote.
//
// So the result is a Config that every package accepts, or an [*Error] with every
// fault: file, line, column, field, what was found and what to write instead.
//
// # What is refused on purpose
//
// An explicit 0 where the packages take 0 as "the default": somebody who writes
// idle_timeout: 0 means something, and it is not two hours. Anchors, aliases,
// merges and tags: a config is short, and an alias can make a short file huge.
// A second document. More than 1 MiB.
package config
