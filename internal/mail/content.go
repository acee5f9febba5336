package mail

import (
	"context"

	"sluice/internal/verdict"
)

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
func (t *Tree) Rendered(ctx context.Context) (*Content, error) {
	return &Content{Subject: t.Root.Header.Text("Subject")}, nil
}
