// Package rules judges mail by rules in SpamAssassin's .cf syntax: regular
// expressions on header fields, on the text a person sees, on raw text, on links
// and on the whole message, and expressions over all of them. It has a small set
// of its own built in (symbols SL_…, and GTUBE).
//
// It runs as a scanner of stage 2: findings of stage 1 are symbols that a meta
// or a score line may name.
//
// Invariants:
//   - A line that isn't run as it was written is a Problem with file, line and
//     remedy; a rule is never dropped in silence, nor is one that needs it.
//   - A .cf file is data: it runs no code and reads no other file.
//   - Patterns run in time linear in the text (RE2's syntax, our own automaton in
//     bounded memory); each message has a budget, and what didn't fit into it, or
//     was too long to be looked at, is a finding of kind unchecked.
//   - Literals, automata and joined rules are short cuts: a rule's value is that
//     of its pattern run alone on each text.
//   - A Ruleset never changes once it is loaded; it may be shared.
//
// Sources: Mail::SpamAssassin::Conf of SpamAssassin 4.0.1 and perlre of Perl
// 5.36. Deviations: rules that need a backtracker, a plugin, eval functions or
// a parsed Received trail are out, each with a Problem; SpamAssassin looks at
// the first 50,000 bytes of a text part, we at all of it; the score set is the
// one of Options.
package rules
