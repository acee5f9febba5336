package mail

import (
	"context"
	"io"
	"iter"

	"sluice/internal/verdict"
)

// Range is a span of a message's bytes: [Start, End).
type Range struct{ Start, End int64 }

// Part is one node of the tree.
type Part struct {
	// Path is "" for the message itself, then "1", "2.1" ….
	Path string
	// Header is the part's own header section.
	Header *Header
	// Type is the media type in lower case ("text/plain" if none is given), Params its
	// parameters.
	Type   string
	Params map[string]string
	// Disposition is "attachment", "inline" or "".
	Disposition string
	// Name is the file name, decoded, "" if none.
	Name string
	// Encoding is the transfer encoding in lower case, "" if none.
	Encoding string
	// Body are the part's body bytes in the message, still encoded.
	Body Range
	// Children are the parts of a multipart, or the one message of a message/rfc822.
	Children []*Part
}

// IsLeaf reports whether the part has no parts of its own.
func (p *Part) IsLeaf() bool { return len(p.Children) == 0 }

// Open returns the leaf's content with its transfer encoding taken off. Read-only;
// valid until the message is closed.
func (p *Part) Open(ctx context.Context) io.Reader { return nil }

// Tree is what the reader made of a message. Read-only once made.
type Tree struct {
	Root *Part
	// Findings name what could not be read (KindUnchecked, Scanner
	// verdict.FinderReader).
	Findings []verdict.Finding
}

// Parts goes through all parts, depth first, the root first.
func (t *Tree) Parts() iter.Seq[*Part] { return nil }

// Content is what a message shows to a person, as rules look at it. See Rendered.
type Content struct {
	// Subject is the decoded subject.
	Subject string
	// Paragraphs are the visible text of all text parts, HTML rendered, in UTF-8,
	// as SpamAssassin's body rules see it: paragraphs with white space runs
	// made one blank.
	Paragraphs []string
	// Raw are chunks of the decoded text parts, HTML kept (rawbody rules).
	Raw []string
	// URIs are the addresses found in text and HTML, in order, once each.
	URIs []URI
	// HTML tells what stands in HTML but is hidden, and its tags.
	HTML HTMLFacts
	// Findings name limits that were hit (KindUnchecked).
	Findings []verdict.Finding
}

// URI is one link.
type URI struct {
	URI string
	// Text is the link's visible text in HTML, "" otherwise.
	Text string
	// Part is the path of the part it stands in.
	Part string
}

// HTMLFacts counts what the renderer saw in HTML parts.
type HTMLFacts struct {
	// Parts is the number of HTML parts, Images, Links, Forms, Scripts and
	// Iframes count tags.
	Parts, Images, Links, Forms, Scripts, Iframes int
	// Hidden is the number of bytes of text that is not shown.
	Hidden int
	// HiddenText is that text, bounded.
	HiddenText string
}

// Rendered returns the content of the message for rules; the result of the first call is
// shared.
func (t *Tree) Rendered(ctx context.Context) (*Content, error) { return nil, nil }
