package mail

import (
	"context"
	"errors"
	"io"
	"os"
)

// SpoolOptions bound what all messages in flight may take.
type SpoolOptions struct {
	// Dir is the directory for what doesn't fit into memory: made with mode
	// 0700 if absent; files in it are unlinked as soon as they are open.
	Dir string
	// MemoryLimit and MaxBytes are the bytes that messages may take in memory
	// and on disk.
	MemoryLimit, MaxBytes int64
	// MaxMessage is the greatest size of one message in bytes.
	MaxMessage int64
}

// Spool makes messages and accounts for the room they take. Safe for concurrent
// use.
type Spool struct {
	opts SpoolOptions
}

// Errors of the spool that callers branch on.
var (
	// ErrSpoolFull: neither memory nor disk has room. The MTA is told 451.
	ErrSpoolFull = errors.New("spool is full")
	// ErrTooLarge: the message is larger than MaxMessage. The MTA is told 552.
	ErrTooLarge = errors.New("message is larger than max_message_size")
	// ErrAborted: the message will never be complete.
	ErrAborted = errors.New("message was aborted")
)

// NewSpool makes the directory and checks that it can be written to.
func NewSpool(o SpoolOptions) (*Spool, error) { return nil, errors.New("spool: not here yet") }

// Full reports whether no further message should be begun: both memory and
// disk are used up.
func (s *Spool) Full() bool { return false }

// Used returns the bytes that messages in flight take in memory and on disk.
func (s *Spool) Used() (memory, disk int64) { return 0, 0 }

// New begins a message. The caller must Close it.
func (s *Spool) New() *Message { return nil }

// Message is one message, kept once, exactly as the MTA holds it: header fields,
// an empty line, body, with CRLF line ends as they came. It is written by one
// goroutine (WriteField, EndHeader, Write, Complete or Abort, in this order)
// while any number of others read what has arrived.
type Message struct{}

// WriteField appends a header field. value is as the milter protocol gives it
// with OptHeaderLeadingSpace: everything after the colon, lines of a folded
// field separated by LF or CRLF (written as CRLF).
func (m *Message) WriteField(name, value string) error { return ErrAborted }

// EndHeader appends the empty line. From now on Header may be called.
func (m *Message) EndHeader() error { return ErrAborted }

// Write appends body bytes.
func (m *Message) Write(p []byte) (int, error) { return 0, ErrAborted }

// ReadFrom reads a whole message (header, empty line, body; LF or CRLF) from r,
// as `sluice scan` has it, and completes it.
func (m *Message) ReadFrom(r io.Reader) (int64, error) { return 0, ErrAborted }

// Complete says that all bytes have arrived.
func (m *Message) Complete() error { return ErrAborted }

// Abort says that the message will never be complete; readers get ErrAborted.
// It does nothing after Complete.
func (m *Message) Abort() {}

// Close gives back what the message holds. The caller must have waited for
// every reader; reads after Close fail with ErrAborted.
func (m *Message) Close() error { return nil }

// Done is closed once the message is complete or aborted.
func (m *Message) Done() <-chan struct{} { return nil }

// Size returns the bytes that have arrived so far.
func (m *Message) Size() int64 { return 0 }

// Digest returns the SHA-256 of the complete message.
func (m *Message) Digest() [32]byte { return [32]byte{} }

// Header returns the header fields, nil before EndHeader.
func (m *Message) Header() *Header { return nil }

// Reader reads the message from off. A read past what has arrived waits for
// more, until the message is complete (io.EOF), aborted (ErrAborted) or ctx
// ends (its error). Readers are independent of each other.
func (m *Message) Reader(ctx context.Context, off int64) io.Reader { return nil }

// ReadAt reads bytes that have arrived (io.ReaderAt).
func (m *Message) ReadAt(p []byte, off int64) (int, error) { return 0, io.EOF }

// HandOver returns the complete message as a file, opened for reading only and
// with an offset of its own, to be passed to another process (clamd's FILDES).
// The caller closes it.
func (m *Message) HandOver() (*os.File, error) { return nil, ErrAborted }

// Tree returns the message's parts. It waits until the message is complete and
// parsed; the first call, which may come as soon as the header is there, starts
// the parsing, and later ones share its result. What could not be read is a
// finding of the tree, never an error; the error is ErrAborted or ctx's.
func (m *Message) Tree(ctx context.Context) (*Tree, error) { return nil, ErrAborted }
