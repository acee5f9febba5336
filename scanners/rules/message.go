package rules

import (
	"context"
	"io"
	"strings"
	"unicode/utf8"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// message is what rules see of a message. It is made for one evaluation.
type message struct {
	header *mail.Header
	parts  []*mail.Part
	// moreParts: there are more than maxParts.
	moreParts bool
	content   *mail.Content
	// sender is the envelope's, bare, "" for the null sender.
	sender   string
	outbound bool
	relay    bool
	local    bool
	// symbols are the findings of the reader and of stage 1, by name.
	symbols map[string]verdict.Score
	// full reads at most n bytes of the message as it came.
	full func(n int64) (string, error)
}

// Bounds of what rules look at.
const (
	maxBodyLine = 2 << 10 // as SpamAssassin splits paragraphs
	maxFull     = 4 << 20 // full rules see so much of a message
	maxParts    = 2_000   // parts that mimeheader rules look at
)

// view gathers what rules need; it waits until the message is complete.
func view(ctx context.Context, in *scanners.Input) (*message, error) {
	tree, err := in.Message.Tree(ctx)
	if err != nil {
		return nil, err
	}
	content, err := tree.Rendered(ctx)
	if err != nil {
		return nil, err
	}
	m := &message{header: in.Message.Header(), content: content, relay: in.Relay,
		outbound: in.Direction == envelope.Outbound, symbols: make(map[string]verdict.Score, len(in.Findings))}
	if e := in.Envelope; e != nil {
		m.sender, m.local = e.Sender.Address.String(), e.Local
	}
	for p := range tree.Parts() {
		if m.moreParts = len(m.parts) == maxParts; m.moreParts {
			break
		}
		m.parts = append(m.parts, p)
	}
	for _, f := range in.Findings {
		m.symbols[f.Symbol] += f.Score
	}
	m.full = func(n int64) (string, error) {
		b, err := io.ReadAll(io.LimitReader(in.Message.Reader(ctx, 0), n))
		return string(b), err
	}
	return m, nil
}

// body returns the lines that body rules see: the subject first, then the text.
func (m *message) body() []string {
	lines := make([]string, 0, len(m.content.Paragraphs)+1)
	lines = append(lines, m.content.Subject)
	for _, p := range m.content.Paragraphs {
		for len(p) > maxBodyLine {
			at := strings.LastIndexByte(p[:maxBodyLine], ' ') + 1
			if at == 0 {
				for at = maxBodyLine; at > maxBodyLine-utf8.UTFMax && !utf8.RuneStart(p[at]); at-- {
				}
			}
			lines = append(lines, p[:at])
			p = p[at:]
		}
		lines = append(lines, p)
	}
	return lines
}

func (m *message) uris() []string {
	out := make([]string, len(m.content.URIs))
	for i, u := range m.content.URIs {
		out[i] = u.URI
	}
	return out
}
