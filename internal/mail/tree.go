package mail

import (
	"context"
	"io"
	"iter"
	"sync"

	"sluice/internal/verdict"
)

// Range is a span of a message's bytes: [Start, End).
type Range struct{ Start, End int64 }

// Len returns the number of bytes.
func (r Range) Len() int64 { return r.End - r.Start }

// Part is one node of the tree.
type Part struct {
	// Path is "" for the message itself, then "1", "2.1" …. The message inside a
	// message/rfc822 part has the part's path and ".1".
	Path string
	// Header is the part's own header section.
	Header *Header
	// Type is the media type in lower case ("text/plain" if none is given,
	// "message/rfc822" in a multipart/digest), Params its parameters, names in
	// lower case, RFC 2231 forms decoded.
	Type   string
	Params map[string]string
	// Disposition is "attachment", "inline" or "".
	Disposition string
	// Name is the file name, decoded, "" if none.
	Name string
	// Encoding is the transfer encoding in lower case, "" if none. Slips of the pen
	// are mended: `8bit"` is "8bit".
	Encoding string
	// Body are the part's body bytes in the message, still encoded.
	Body Range
	// Children are the parts of a multipart, or the one message of a message/rfc822.
	// A multipart without any delimiter has none and is a leaf: its body is read
	// as text.
	Children []*Part
	// Preamble and Epilogue are the bytes of a multipart's body before its first
	// and after its last delimiter line; both are empty for others.
	Preamble, Epilogue Range

	coding coding
	source io.ReaderAt
}

// IsLeaf reports whether the part has no parts of its own.
func (p *Part) IsLeaf() bool { return len(p.Children) == 0 }

// Open returns the leaf's content with its transfer encoding taken off, as
// leniently as mail programs do, its characters not touched; of a part with children, the
// bytes of its body as they are. Read-only; valid until the message is closed.
// Each reader is used by one goroutine. Reads fail once ctx has ended.
func (p *Part) Open(ctx context.Context) io.Reader {
	raw := &sectionReader{ctx: ctx, source: p.source, off: p.Body.Start, end: p.Body.End}
	if !p.IsLeaf() {
		return raw
	}
	return p.coding.decode(raw, p.Body.Len())
}

// sectionReader holds a context since io.Reader has no room for one.
type sectionReader struct {
	ctx      context.Context
	source   io.ReaderAt
	off, end int64
}

func (r *sectionReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.off >= r.end {
		return 0, io.EOF
	}
	n, err := r.source.ReadAt(p[:min(int64(len(p)), r.end-r.off)], r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil // a lasting error comes again
	}
	return n, err
}

// Tree is what the reader made of a message. Read-only once made.
type Tree struct {
	Root *Part
	// Findings name what could not be read (KindUnchecked, Scanner
	// verdict.FinderReader).
	Findings []verdict.Finding
	// Panic is what the parser panicked with and where, "" if it didn't: to be
	// logged and counted. Such a message is one leaf and unchecked.
	Panic string

	message  *Message
	mu       sync.Mutex // guards rendered
	rendered *Content
}

// Parts goes through all parts, depth first, the root first.
func (t *Tree) Parts() iter.Seq[*Part] {
	return func(yield func(*Part) bool) { t.Root.walk(yield) }
}

// walk returns false if yield did.
func (p *Part) walk(yield func(*Part) bool) bool {
	if !yield(p) {
		return false
	}
	for _, c := range p.Children {
		if !c.walk(yield) {
			return false
		}
	}
	return true
}
