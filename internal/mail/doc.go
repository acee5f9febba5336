// Package mail reads messages: the spool that holds them, their header fields,
// the tree of their parts, and the text that a person would see. It hides
// go-message.
//
// # Where a message lies
//
// A message is kept once. Up to 64 KiB it lies in a pooled buffer; most mail never leaves it,
// and costs no descriptor. What grows past that goes on in one file: a memfd, counted as memory,
// while memory_limit has room, else an unlinked file in the spool's directory. A message
// that finds memory used up while it grows is moved to disk, once. So a large
// message is always one file, which can be handed to clamd as it is, and its bytes never count
// as resident memory of this process. A small one is copied into a sealed memfd
// when it has to be handed over.
//
// Readers copy out under a lock, or read the file by offset (pread), so nobody
// holds memory of the spool beyond a call, and Close may come at any time.
//
// # How it is read
//
// Parts are ranges of the message's bytes. The splitter, the reader of structured fields and the
// decoders are our own: go-message gives no offsets, gives up a message at its first
// flaw, and turns a text's bytes into UTF-8 before a scanner has seen them. From it come the
// character sets; and tests hold the tree against its on well-formed mail.
// Where mail programs are known to differ, this reader takes one reading, the
// usual one: of fields or parameters that come twice the first, delimiters of the
// innermost part first, parts even after a last delimiter.
//
// Invariants:
//   - Readers see exactly the bytes that were written, in order, from any offset,
//     however they are stored at that moment.
//   - Used returns to zero when every message has been closed.
//   - What could not be read is a finding; no part and no byte is dropped in
//     silence.
//   - Every input is bounded: message, header section, parts, depth, text.
//   - No goroutine outlives Message.Close.
//
// Standards: RFC 5322 (messages), RFC 2045–2049 (MIME), RFC 2231 (parameters),
// RFC 2047 (encoded words). All are read leniently: see tree.go.
package mail
