// Package strictyaml decodes YAML files that people write into plain structs
// and reports every mistake at once, each with file, line, column, key and
// remedy. Libraries that decode strictly stop at the first mistake; this package
// walks the syntax tree instead.
//
// What it reads is YAML 1.2 without its traps: one document, no anchors and
// aliases, no tags, no merge keys, no complex keys. Text that begins with one of
// YAML's signs (* & ! @ %) has to be quoted, and is told so.
//
// Invariants:
//   - A key that isn't known, a value of another type and a key that stands twice
//     are problems, never ignored.
//   - A value with a problem leaves the target as it was before (its default).
//   - Input is bounded: MaxBytes, 100 levels of nesting, MaxProblems.
//   - No type of the YAML library shows in an exported signature.
//
// Source: YAML 1.2.2, https://yaml.org/spec/1.2.2/.
package strictyaml
