// Package gateway conducts one message through the steps: it says which way the
// message goes, sets the reader and the scanners to work, asks policy what
// becomes of each recipient's copy, writes the header fields that the message
// bears afterwards, keeps the record, writes the log line and counts.
//
// Invariants (the numbers are those of the project's style guide):
//   - 1: a message for which Finish was called has one disposition, one record
//     and one log line; an abandoned one has one log line and nothing else.
//   - 2: whatever goes wrong here is a 451 with the record's ID; without a record
//     there is no other reply.
//   - 3: a message is scanned once, and decided on for each recipient alone.
//   - 4: the message is never changed; header changes are told to the MTA.
//   - 6: no subject, body or credential is logged, counted or put into a reply.
//   - 7: what a run starts has ended when Answered or Abandon returns.
//   - 8: a reader that could not finish, and a scanner without an answer, leave a
//     finding.
//   - No field that is written, but the Subject, holds text the sender chose.
//
// Mail that is signed or encrypted by S/MIME or PGP keeps its Subject: the flag
// marks it, no tag does.
//
// Standards: RFC 5322 §2.2 (fields and folding), RFC 2047 (encoded words), RFC
// 8601 §5 (removal of Authentication-Results), RFC 3463 (status codes), RFC 9562
// (UUIDv7).
package gateway
