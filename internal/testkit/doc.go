// Package testkit starts private servers for tests, the demonstration and the
// benchmarks: Postfix, Sendmail, clamd, an SMTP sink, and it speaks SMTP and
// milter as a client does. Nothing of it is linked into the product.
//
// What takes a TB is for tests: it stops at the first trouble with Fatalf and
// tidies up by Cleanup. What returns an error is for programs, which call Stop.
//
// Invariants:
//   - A server lives in a directory of its own, listens on loopback or on a unix
//     socket below that directory, and reads nothing below /etc that a
//     postmaster of this machine may have changed.
//   - Only processes that were started here are ever signalled, by their ID, and
//     none outlives the program that started it.
//   - Every wait has a deadline. Nothing waits by sleeping and hoping.
//   - The files of a server are kept, and their place told, if the test failed.
//   - The strings that every scanner knows (EICAR, GTUBE) are put together at run
//     time, so that neither source nor binary is taken for malware.
package testkit
