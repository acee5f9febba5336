// Package config holds the configuration as plain structs, with the built-in
// values, and reads it from one YAML file. cmd maps the structs to each
// package's own options; this package knows none of them.
//
// Invariants:
//   - Every key of the documentation is accepted; what the build can't do is an
//     error only where it is asked for, never silently absent.
//   - All mistakes of a file are told at once, with their places.
//   - Relative paths start at the file's folder and are absolute once loaded.
//   - docs/config.md is made from these structs (see Markdown), and a test holds it so.
package config
