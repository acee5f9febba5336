package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/internal/verdict"
)

// Bounds of the text that is made of a message. What lies past them isn't seen by rules, and a
// finding says so.
const (
	maxTextPart    = 4 << 20
	maxTextMessage = 8 << 20
	maxURIs        = 5000
	maxURI         = 4 << 10
	maxLinkText    = 256
	maxHiddenText  = 64 << 10
)

// Lengths that SpamAssassin cuts at (Mail::SpamAssassin::Message).
const (
	maxParagraph = 2048
	minChunk     = 2048
	maxChunk     = 4096
)

// Content is what a message shows to a person, as rules look at it. See Rendered.
type Content struct {
	// Subject is the decoded subject.
	Subject string
	// Paragraphs are the text of all text parts, HTML rendered, in UTF-8, as
	// SpamAssassin's body rules see it: paragraphs with white space runs made
	// one blank, cut at 2048 bytes; text that HTML hides is among it. The
	// subject is not.
	Paragraphs []string
	// Raw are chunks of 2–4 KiB of the decoded text parts, HTML kept, in their own
	// character set, line ends made LF (rawbody rules).
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
	// URI is the address as it was written, blanks at its ends and line breaks
	// removed; "http://" is put before "www.".
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
// shared, and others wait for it. The error is ctx's, ErrAborted, or a read error of the spool. The text counts
// as memory of the spool until the message is closed.
func (t *Tree) Rendered(ctx context.Context) (*Content, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rendered != nil {
		return t.rendered, nil
	}
	r := &renderer{left: maxTextMessage, seen: map[string]int{}}
	r.content.Subject = t.Root.Header.Text("Subject")
	for p := range t.Parts() {
		if err := r.part(ctx, p); err != nil {
			return nil, err
		}
	}
	r.content.Paragraphs = paragraphs(r.text.String())
	r.content.HTML.HiddenText = r.hidden.String()
	t.message.charge(r.size())
	t.rendered = &r.content
	return t.rendered, nil
}

// renderer gathers the content of one message.
type renderer struct {
	content Content
	left    int64 // bytes of text that may still be read
	text    strings.Builder
	hidden  strings.Builder
	seen    map[string]int // index in content.URIs
}

// size returns about how much memory the content takes.
func (r *renderer) size() int64 {
	n := int64(r.text.Len() + r.hidden.Len())
	for _, s := range r.content.Raw {
		n += int64(len(s))
	}
	return n
}

func (r *renderer) find(symbol, path, description string) {
	for _, f := range r.content.Findings {
		if f.Symbol == symbol {
			return // one of a kind is enough
		}
	}
	r.content.Findings = append(r.content.Findings, verdict.Finding{
		Symbol: symbol, Kind: verdict.KindUnchecked, Description: description,
		Scanner: verdict.FinderReader, Part: path,
	})
}

// part adds what one part shows.
func (r *renderer) part(ctx context.Context, p *Part) error {
	if !p.IsLeaf() {
		return nil
	}
	// A multipart without parts is shown as text by mail programs.
	text := strings.HasPrefix(p.Type, "text/") || strings.HasPrefix(p.Type, "multipart/")
	raw := text && p.Type != "text/calendar" || strings.HasPrefix(p.Type, "message/")
	if !text && !raw {
		return nil
	}
	limit := min(maxTextPart, r.left)
	data, err := readUpTo(p.Open(ctx), limit, p.Body.Len())
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		data = data[:limit]
		r.find(symbolTextTooLong, p.Path, fmt.Sprintf("The text is longer than %d MiB a part or %d MiB a message; the rest was not looked at by rules", maxTextPart>>20, maxTextMessage>>20))
	}
	r.left -= int64(len(data))
	s := strings.ReplaceAll(string(data), "\r\n", "\n")
	if raw {
		r.content.Raw = appendChunks(r.content.Raw, s)
	}
	if !text {
		return nil
	}
	if r.text.Len() > 0 {
		r.text.WriteByte('\n')
	}
	set := p.charset(s)
	if hasPrefixFold(set, "utf-16") || hasPrefixFold(set, "utf-32") {
		s = string(data) // CR LF is no line end there before it is decoded
	}
	s = strings.ReplaceAll(strings.TrimPrefix(toUTF8(s, set), "\ufeff"), "\r\n", "\n")
	if p.Type == "text/html" {
		return r.html(ctx, p.Path, s)
	}
	start := r.text.Len()
	r.text.WriteString(s)
	r.findURIs(p.Path, start)
	return nil
}

// charset returns the part's character set, or what HTML says of itself.
func (p *Part) charset(html string) string {
	if set := p.Params["charset"]; set != "" || p.Type != "text/html" {
		return set
	}
	head := strings.ToLower(html[:min(len(html), 1024)])
	i := strings.Index(head, "charset=")
	if i < 0 || !strings.Contains(head[:i], "<meta") {
		return ""
	}
	set := strings.TrimLeft(head[i+len("charset="):], `"' `)
	if end := strings.IndexAny(set, `"'/> ;`); end >= 0 {
		set = set[:end]
	}
	return set
}

// readUpTo reads at most limit+1 bytes; size is a guess of how many there are.
func readUpTo(r io.Reader, limit, size int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(limit, size)) + bytes.MinRead)
	_, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if errors.Is(err, bytes.ErrTooLarge) {
		err = ErrSpoolFull
	}
	return b.Bytes(), err
}

// findURIs adds the addresses that stand in the gathered text from start on.
func (r *renderer) findURIs(path string, start int) {
	for uri := range textURIs(r.text.String()[start:]) {
		r.addURI(uri, path)
	}
}

// addURI keeps an address, once, and returns its index, -1 if it isn't kept.
func (r *renderer) addURI(uri, path string) int {
	if uri == "" {
		return -1
	}
	if i, ok := r.seen[uri]; ok {
		return i
	}
	if len(r.content.URIs) >= maxURIs {
		r.find(symbolTooManyURIs, path, fmt.Sprintf("There are more than %d addresses; the others were not looked at", maxURIs))
		return -1
	}
	r.seen[uri] = len(r.content.URIs)
	r.content.URIs = append(r.content.URIs, URI{URI: uri, Part: path})
	return len(r.content.URIs) - 1
}

// paragraphs splits text where two line ends stand with nothing but white
// space between them, makes other runs of white space one blank, and cuts what
// is longer than maxParagraph, at a blank if there is one.
func paragraphs(text string) []string {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		if c := text[i]; c > ' ' && c != 0xc2 {
			b = append(b, c)
			i++
			continue
		}
		j, first, last, lines := i, -1, -1, 0
		for n := blankLen(text[j:]); n > 0; n = blankLen(text[j:]) {
			if text[j] == '\n' {
				if first < 0 {
					first = j
				}
				last, lines = j, lines+1
			}
			j += n
		}
		switch {
		case j == i: // some other control character, or the first byte of a letter
			b = append(b, text[i])
			j++
		case lines < 2:
			b = append(b, ' ')
		default:
			if first > i {
				b = append(b, ' ')
			}
			b = append(b, '\n')
			if last+1 < j {
				b = append(b, ' ')
			}
		}
		i = j
	}
	var all []string
	for line := range strings.SplitSeq(string(b), "\n") {
		for len(line) > maxParagraph {
			cut := strings.LastIndexByte(line[:maxParagraph+1], ' ') + 1
			if cut == 0 {
				cut = runeStart(line, maxParagraph)
			}
			all = append(all, line[:cut])
			line = line[cut:]
		}
		if line != "" {
			all = append(all, line)
		}
	}
	return all
}

// blankLen returns the length of the white space character that s begins with,
// no-break space included, or 0.
func blankLen(s string) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case ' ', '\t', '\n', '\r', '\v', '\f':
		return 1
	case 0xc2:
		if strings.HasPrefix(s, "\u00a0") {
			return 2
		}
	}
	return 0
}

// runeStart returns the greatest index ≤ i where a character begins, but at
// least 1; text that is not UTF-8 is cut at i.
func runeStart(s string, i int) int {
	for j := i; j > i-4 && j > 0; j-- {
		if s[j]&0xc0 != 0x80 {
			return j
		}
	}
	return i
}

// appendChunks cuts text after a line end, else a '>', else a blank, into pieces
// of at most maxChunk bytes.
func appendChunks(chunks []string, text string) []string {
	for len(text) > maxChunk {
		window, cut := text[minChunk:maxChunk], maxChunk
		for _, c := range []byte{'\n', '>', ' '} {
			if i := strings.LastIndexByte(window, c); i >= 0 {
				cut = minChunk + i + 1
				break
			}
		}
		chunks = append(chunks, text[:cut])
		text = text[cut:]
	}
	if text != "" {
		chunks = append(chunks, text)
	}
	return chunks
}
