// Package e2e holds tests of the built daemon from outside: mail goes in through a
// real Postfix or Sendmail, a real clamd looks at it, and what counts is what the
// client was told, what arrived and what the log says. There is no code in it but
// tests.
//
// Each row of the fault matrix that concerns MTA, clamd, files, signals, memory,
// descriptors or malformed frames has a test named TestFault… after it; the cases
// from the field that need a real MTA have tests named TestField….
//
// Invariants:
//   - Nothing here reaches into the program: it is built once, started as a
//     postmaster starts it, and asked over its sockets.
//   - Servers are private (internal/testkit) and end with the tests.
//   - No test judges by the clock: a wait ends when what it waits for is there, and
//     its deadline is far beyond what is normal.
package e2e
