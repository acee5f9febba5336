package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/html"
)

// maxTokens bounds the tokens of one HTML part; what follows is taken as text.
const maxTokens = 1_000_000

// html adds the text of an HTML part. It looks at tokens only and never builds a
// document: that takes linear time and bounded memory whatever the input (see
// x/net/html's advisories on Parse).
func (r *renderer) html(ctx context.Context, path, text string) error {
	r.content.HTML.Parts++
	start := r.text.Len()
	h := &htmlReader{renderer: r, path: path, link: -1, tokenizer: html.NewTokenizer(strings.NewReader(text))}
	consumed := 0
	for n := 0; ; n++ {
		if n%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if n >= maxTokens {
			r.find(symbolTextTooLong, path, fmt.Sprintf("HTML of more than %d tokens; the rest was taken as plain text", maxTokens))
			r.text.WriteString(text[min(consumed, len(text)):])
			break
		}
		token := h.tokenizer.Next()
		if token == html.ErrorToken {
			if err := h.tokenizer.Err(); !errors.Is(err, io.EOF) {
				r.find(symbolUnreadable, path, "HTML that can't be read; the rest was taken as plain text")
				r.text.WriteString(text[min(consumed, len(text)):])
			} else {
				// A tag that never ends is the rest of the input.
				h.rest(text[min(consumed, len(text)):])
			}
			break
		}
		consumed += len(h.tokenizer.Raw())
		h.token(token)
	}
	r.findURIs(path, start)
	return nil
}

// htmlReader is the state within one HTML part.
type htmlReader struct {
	*renderer
	path      string
	tokenizer *html.Tokenizer
	skip      string // "script" or "style" while inside
	pre       int
	link      int // index of the open link in content.URIs, -1 if none
	linkText  strings.Builder
	open      []element
}

// element is an open element, with what holds for the text in it.
type element struct {
	name string
	// hidden can't be undone by an element inside, zeroFont can: newsletters often
	// set a size of 0 around a table and another one in its cells.
	hidden, zeroFont bool
}

// maxOpen bounds the open elements that are kept, maxImplied those that one end
// tag closes.
const (
	maxOpen    = 256
	maxImplied = 64
)

// hides reports whether text isn't shown here.
func (h *htmlReader) hides() bool {
	top := h.top()
	return top.hidden || top.zeroFont
}

func (h *htmlReader) top() element {
	if n := len(h.open); n > 0 {
		return h.open[n-1]
	}
	return element{}
}

func (h *htmlReader) token(token html.TokenType) {
	switch token {
	case html.TextToken:
		if h.skip == "" {
			h.write(string(h.tokenizer.Text()))
		}
	case html.StartTagToken, html.SelfClosingTagToken:
		name, more := h.tokenizer.TagName()
		h.startTag(string(name), more)
	case html.EndTagToken:
		name, _ := h.tokenizer.TagName()
		h.endTag(string(name))
	}
}

// write adds text; blanks run together unless it is preformatted.
func (h *htmlReader) write(s string) {
	if h.pre == 0 {
		s = collapse(s)
	}
	if h.link >= 0 && h.linkText.Len() < maxLinkText {
		cut := s
		if len(cut) > maxLinkText {
			cut = cut[:runeStart(cut, maxLinkText)]
		}
		h.linkText.WriteString(cut)
	}
	if h.hides() && strings.TrimSpace(s) != "" {
		h.content.HTML.Hidden += len(s)
		if room := maxHiddenText - h.hidden.Len(); room > 0 {
			h.hidden.WriteString(strings.ToValidUTF8(s[:min(len(s), room)], ""))
		}
	}
	h.text.WriteString(s)
}

// rest handles an input that ends within a tag: mail programs differ in whether they
// show it, so its text is looked at.
func (h *htmlReader) rest(s string) {
	if s != "" && h.skip == "" {
		h.text.WriteByte(' ')
		h.write(s)
	}
}

func (h *htmlReader) startTag(name string, more bool) {
	facts := &h.content.HTML
	switch name {
	case "img":
		facts.Images++
	case "a":
		facts.Links++
		h.endLink()
	case "form":
		facts.Forms++
	case "script":
		facts.Scripts++
	case "iframe":
		facts.Iframes++
	}
	var look style
	for more {
		var key, value []byte
		key, value, more = h.tokenizer.TagAttr()
		switch string(key) {
		case "href", "src", "action", "background", "data", "cite", "longdesc", "lowsrc", "formaction", "poster":
			i := h.addURI(attributeURI(strings.ToValidUTF8(string(value), "?")), h.path)
			if name == "a" && string(key) == "href" {
				h.link = i
			}
		case "style":
			look.read(string(value))
		case "hidden":
			look.hidden = true
		}
	}
	h.push(name, look)
	switch name {
	case "script", "style":
		h.skip = name
	case "br", "div", "tr":
		h.text.WriteByte('\n')
	case "p", "hr", "blockquote", "pre", "listing", "plaintext", "xmp", "title", "table", "ul", "ol":
		h.text.WriteString("\n\n")
	case "li", "th", "td", "dt", "dd", "embed", "h1", "h2", "h3", "h4", "h5", "h6":
		h.text.WriteByte(' ')
	}
	if name == "pre" {
		h.pre++
	}
}

func (h *htmlReader) endTag(name string) {
	if h.skip == name {
		h.skip = ""
	}
	h.pop(name)
	switch name {
	case "a":
		h.endLink()
	case "pre":
		h.pre = max(0, h.pre-1)
	case "p", "div", "tr", "td", "th", "li", "table", "title", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6":
		h.text.WriteByte(' ')
	}
}

// endLink keeps the text of the link that was open. Of several links to the same
// address the first text counts.
func (h *htmlReader) endLink() {
	if h.link >= 0 {
		if u := &h.content.URIs[h.link]; u.Text == "" {
			u.Text = strings.TrimSpace(h.linkText.String())
		}
	}
	h.link = -1
	h.linkText.Reset()
}

// push opens an element.
func (h *htmlReader) push(name string, look style) {
	switch name {
	case "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr":
		return // they have no content
	case "p", "li", "td", "th", "tr", "dt", "dd", "option":
		if h.top().name == name { // the next one ends the one before
			h.open = h.open[:len(h.open)-1]
		}
	}
	if len(h.open) >= maxOpen {
		return
	}
	e := h.top()
	e.name = name
	e.hidden = e.hidden || look.hidden
	if look.sized {
		e.zeroFont = look.zeroFont
	}
	h.open = append(h.open, e)
}

// pop closes the innermost element of that name, and those inside it; an end
// tag without an element does nothing.
func (h *htmlReader) pop(name string) {
	for i := len(h.open) - 1; i >= 0 && i >= len(h.open)-maxImplied; i-- {
		if h.open[i].name == name {
			h.open = h.open[:i]
			return
		}
	}
}

// style is what a style attribute says of whether text is shown.
type style struct{ hidden, sized, zeroFont bool }

// read takes the declarations of a style attribute.
func (s *style) read(css string) {
	css = strings.ToLower(css[:min(len(css), maxURI)])
	noHeight, cut := false, false
	for declaration := range strings.SplitSeq(css, ";") {
		property, value, ok := strings.Cut(declaration, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "!important"))
		switch strings.TrimSpace(property) {
		case "display":
			s.hidden = s.hidden || value == "none"
		case "visibility":
			s.hidden = s.hidden || value == "hidden" || value == "collapse"
		case "mso-hide":
			s.hidden = s.hidden || value == "all"
		case "opacity":
			s.hidden = s.hidden || isZero(value)
		case "font-size":
			s.sized, s.zeroFont = true, isZero(value)
		case "height", "max-height":
			noHeight = noHeight || isZero(value)
		case "overflow":
			cut = cut || value == "hidden"
		}
	}
	s.hidden = s.hidden || noHeight && cut
}

// isZero reports whether a CSS number, with or without a unit, is 0.
func isZero(value string) bool {
	number := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyz% ")
	return number != "" && strings.Trim(number, "0.") == ""
}

// collapse makes runs of white space one blank; no-break spaces stay.
func collapse(s string) string {
	const blanks = " \t\n\r\f\v"
	if !strings.ContainsAny(s, "\t\n\r\f\v") && !strings.Contains(s, "  ") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for s != "" {
		i := strings.IndexAny(s, blanks)
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		b.WriteByte(' ')
		s = strings.TrimLeft(s[i:], blanks)
	}
	return b.String()
}
