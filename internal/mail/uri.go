package mail

import (
	"iter"
	"strings"
)

// textURIs goes through the addresses that mail programs make links of: those that begin
// with http:, https:, ftp:, mailto: or www. It takes linear time.
func textURIs(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(text); {
			// Both forms have one of these early: look for it, then back.
			mark := strings.IndexAny(text[i:], ":.")
			if mark < 0 {
				return
			}
			mark += i
			start, n := uriAround(text, i, mark)
			if n == 0 {
				i = mark + 1
				continue
			}
			i = start
			uri := strings.TrimRight(text[i:i+min(n, maxURI)], ".,;:!?'\")]}*_")
			if hasPrefixFold(uri, "www.") {
				uri = "http://" + uri
			}
			if !yield(uri) {
				return
			}
			i += n
		}
	}
}

// uriAround returns the address whose ':' after the scheme, or '.' after www, is at
// mark and that begins at or after from, and its length; 0 if there is none.
func uriAround(text string, from, mark int) (start, n int) {
	start = mark
	for start > from && mark-start < len("mailto") && isWord(text[start-1]) {
		start--
	}
	if start > 0 && isWord(text[start-1]) {
		return 0, 0
	}
	return start, uriLen(text[start:])
}

// uriLen returns the length of the address that s begins with, 0 if there is none.
func uriLen(s string) int {
	for _, prefix := range []string{"http://", "https://", "ftp://", "mailto:", "www."} {
		if !hasPrefixFold(s, prefix) {
			continue
		}
		n := len(prefix)
		for n < len(s) && isURIByte(s[n]) && !strings.HasPrefix(s[n:], "\u00a0") {
			n++
		}
		if n == len(prefix) {
			return 0
		}
		return n
	}
	return 0
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func isURIByte(c byte) bool {
	return c > ' ' && c != 0x7f && !strings.ContainsRune("<>\"`{}|\\^", rune(c))
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_'
}

// attributeURI cleans an address that stands in an HTML attribute, as browsers
// do (WHATWG URL §4.4: blanks at the ends, tabs and line ends anywhere). It
// returns "" if it leads nowhere outside the message.
func attributeURI(v string) string {
	v = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, v[:min(len(v), maxURI)])
	v = strings.Trim(v, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
	switch {
	case strings.HasPrefix(v, "//"):
		return "http:" + v
	case hasPrefixFold(v, "www."):
		return "http://" + v
	}
	scheme, _, ok := strings.Cut(v, ":")
	if !ok || scheme == "" {
		return ""
	}
	for i := range len(scheme) {
		if c := scheme[i]; !isWord(c) && c != '+' && c != '-' && c != '.' {
			return ""
		}
	}
	switch strings.ToLower(scheme) {
	case "cid", "mid", "data", "about":
		return ""
	}
	return v
}
