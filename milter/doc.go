// Package milter speaks the milter protocol to an MTA and carries out what the
// gateway decides. Of the program's packages it alone knows the protocol.
//
// github.com/emersion/go-milter dispatches the commands; it sits behind a net.Conn of
// ours (conn) that reads the frames, and behind a handler that lives as long as the
// connection. What the library would lose (macros of earlier stages, ESMTP arguments,
// header fields with odd bytes, the MTA's offer) is read off the frames by conn, and no
// byte that the MTA sent reaches the library: it is told which callback is due.
//
// Invariants:
//   - Each command gets exactly one reply, or none where none is due. A reply that isn't
//     due never reaches the socket, for the MTA would take it as the answer to a later
//     command. A command whose reply is missing gets 451.
//   - SMFIR_SHUTDOWN is never sent: Postfix 3.7 answers 250 to it at end of message and
//     drops the mail.
//   - Nothing of one message is seen by the next on the same connection, with or without
//     an ABORT between them.
//   - Each message that was begun is ended exactly once: Finish and Answered, or Abandon,
//     or (if no Run came of it) Close.
//   - Our own trouble is answered 451, also past the connection limit and after a panic; the
//     connection is closed only on broken frames, at QUIT, and at the end of a drain.
//   - No goroutine outlives its session; every wait has a deadline, every input a bound.
//
// The protocol has no standard. Followed are libmilter's mfdef.h (versions 2 to 6) and the
// behaviour of Postfix 3.7 and Sendmail 8.17. Not used: body replacement, change of
// sender, the MTA's quarantine, SKIP.
package milter
