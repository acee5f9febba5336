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
	// hiddenBy is the element that hides what is inside it; depth counts those of
	// its name that are open inside, itself included.
	hiddenBy string
	depth    int
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
	if h.hiddenBy != "" && strings.TrimSpace(s) != "" {
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
	hides := false
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
			hides = hides || hidingStyle(string(value))
		case "hidden":
			hides = true
		}
	}
	h.hide(name, hides)
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
	if name == h.hiddenBy {
		if h.depth--; h.depth == 0 {
			h.hiddenBy = ""
		}
	}
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

// hide keeps track of the element that hides text.
func (h *htmlReader) hide(name string, hides bool) {
	switch name {
	case "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr":
		return // they have no content
	case "p", "li", "td", "th", "tr", "dt", "dd", "option":
		if name == h.hiddenBy { // the next one ends the one before
			h.hiddenBy, h.depth = "", 0
		}
	}
	switch {
	case name == h.hiddenBy:
		h.depth++
	case h.hiddenBy == "" && hides:
		h.hiddenBy, h.depth = name, 1
	}
}

// hidingStyle reports whether a style attribute hides the element's text.
func hidingStyle(style string) bool {
	style = strings.ToLower(style[:min(len(style), maxURI)])
	for declaration := range strings.SplitSeq(style, ";") {
		property, value, ok := strings.Cut(declaration, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "!important"))
		switch strings.TrimSpace(property) {
		case "display":
			if value == "none" {
				return true
			}
		case "visibility":
			if value == "hidden" || value == "collapse" {
				return true
			}
		case "mso-hide":
			if value == "all" {
				return true
			}
		case "font-size", "opacity", "max-height":
			number := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyz% ")
			if number != "" && strings.Trim(number, "0.") == "" {
				return true
			}
		}
	}
	return false
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
