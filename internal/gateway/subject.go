package gateway

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"sluice/internal/mail"
	"sluice/internal/verdict"
)

const (
	lineWidth   = 78  // preferred length of a header line, RFC 5322 §2.1.1
	lineLimit   = 998 // greatest length of one
	minTag      = 3   // characters; old copies of shorter tags are left alone
	maxTagBytes = 256
	maxPrefixes = 8 // "Re:" and its like, behind which tags are looked for
)

// replyPrefixes are what mail programs put before the subject of a reply or a
// forwarded message; an old tag may stand behind them.
var replyPrefixes = [...]string{"re:", "fwd:", "fw:", "aw:", "wg:", "antw:", "sv:", "vs:", "tr:", "rif:"}

// tagSubject puts tags before a Subject, each once, whatever was there. raw is the
// arriving field's value with its folds ("" if there is none). Old copies of a
// tag of at least three characters are taken off the front of the decoded
// subject, also behind "Re:" and its like. The rest keeps its bytes unless a copy
// was taken out of an encoded word, the value has 8-bit bytes, or a line would
// grow past 998 bytes; then it is decoded and encoded anew. The result is 7-bit,
// folded with "\n " and has no leading blank.
func tagSubject(raw string, tags []string) string {
	tags = cleanTags(tags)
	rest := strings.Trim(unfold(raw), " \t")
	if len(tags) == 0 {
		return fitSubject(rest)
	}
	// Front to back, so that tags piled up in any order all go.
	rest = stripTags(rest, tags)
	if decoded := decodeWords(rest); decoded != rest {
		if stripped := stripTags(decoded, tags); stripped != decoded {
			rest = fitSubject(stripped)
		}
	}
	return fitSubject(joinTags(tags, rest))
}

// joinTags writes the tags and the rest, a blank standing wherever an encoded
// word begins or ends beside plain text (RFC 2047 §5).
func joinTags(tags []string, rest string) string {
	front := strings.Join(tags, "")
	encoded := strings.HasPrefix(rest, "=?")
	switch {
	case isPlain(front) && encoded && !strings.HasSuffix(front, " "):
		return front + " " + rest
	case isPlain(front):
		return front + rest
	case encoded: // the blank between encoded words isn't shown
		return encodeWords(front) + " " + rest
	}
	return encodeWords(strings.TrimRight(front, " ")) + " " + rest
}

// cleanTags drops empty and repeated tags and takes control characters out.
func cleanTags(tags []string) []string {
	var kept []string
next:
	for _, t := range tags {
		t = strings.TrimLeft(verdict.Printable(t, maxTagBytes), " ")
		if t == "" {
			continue
		}
		for _, k := range kept {
			if strings.TrimSpace(k) == strings.TrimSpace(t) {
				continue next
			}
		}
		kept = append(kept, t)
	}
	return kept
}

// stripTags takes all copies of tags off the front of s, and from behind the
// first few reply prefixes there. It returns s itself if there are none.
func stripTags(s string, tags []string) string {
	var kept []string // prefixes that stay
	rest, changed := s, false
	for {
		var n int
		if rest, n = skipTags(rest, tags); n > 0 {
			changed = true
		}
		n = prefixLength(rest)
		if n == 0 || len(kept) == maxPrefixes {
			break
		}
		kept = append(kept, rest[:n])
		rest = rest[n:]
	}
	if !changed {
		return s
	}
	// Prefixes behind which nothing was found are joined again as they stood only
	// in words: a blank follows each.
	return strings.Join(append(kept, rest), " ")
}

// skipTags skips tags and blanks at the front of s; n is how many tags there were.
func skipTags(s string, tags []string) (rest string, n int) {
	rest = strings.TrimLeft(s, " \t")
	for again := true; again; {
		again = false
		for _, t := range tags {
			t = strings.TrimSpace(t)
			if utf8.RuneCountInString(t) < minTag {
				continue
			}
			if l := foldPrefix(rest, t); l > 0 {
				rest, again = strings.TrimLeft(rest[l:], " \t"), true
				n++
			}
		}
	}
	return rest, n
}

func prefixLength(s string) int {
	for _, p := range replyPrefixes {
		if n := foldPrefix(s, p); n > 0 {
			return n
		}
	}
	return 0
}

// foldPrefix returns the length in bytes of the front of s that equals p without
// regard to case, 0 if it doesn't.
func foldPrefix(s, p string) int {
	n := 0
	for range p { // as many runes of s as p has
		if n >= len(s) {
			return 0
		}
		_, size := utf8.DecodeRuneInString(s[n:])
		n += size
	}
	if strings.EqualFold(s[:n], p) {
		return n
	}
	return 0
}

// unfold takes line ends out (RFC 5322 §2.2.3) and replaces other controls.
func unfold(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r' || r == '\n':
			return -1
		case r == '\t':
			return '\t'
		case r < 0x20 || r == 0x7f:
			return ' '
		}
		return r
	}, toUTF8(s))
}

// toUTF8 returns s if it is UTF-8, else its bytes read as ISO 8859-1, in which
// nothing gets lost.
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// decodeWords decodes encoded words as far as it can.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	return toUTF8(mail.Field{Value: s}.Text())
}

// isPlain reports whether s can stand in a field as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] != '\t' && (s[i] < ' ' || s[i] > '~') {
			return false
		}
	}
	return !strings.Contains(s, "=?")
}

// fitSubject makes s 7-bit and folds it. What can't be folded is encoded.
func fitSubject(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return encodeSubject(s)
		}
	}
	if folded, ok := fold(s, len("Subject: ")); ok {
		return folded
	}
	return encodeSubject(s)
}

// encodeSubject writes all of s as encoded words, one a line.
func encodeSubject(s string) string {
	return strings.ReplaceAll(encodeWords(unfold(decodeWords(s))), " ", "\n ")
}

// fold breaks s at its blanks so that lines stay within 78 bytes where they can;
// unfolding gives s back. ok is false if a line would pass 998 bytes. first is
// the length of what stands before s on its first line.
func fold(s string, first int) (folded string, ok bool) {
	var b strings.Builder
	width, ok := first, true
	for len(s) > 0 {
		blanks := len(s) - len(strings.TrimLeft(s, " \t"))
		word := strings.IndexAny(s[blanks:], " \t")
		if word < 0 {
			word = len(s) - blanks
		}
		token := s[:blanks+word]
		if width+len(token) > lineWidth && blanks > 0 && word > 0 && b.Len() > 0 {
			b.WriteByte('\n')
			width = 0
		}
		b.WriteString(token)
		if width += len(token); width > lineLimit {
			ok = false
		}
		s = s[len(token):]
	}
	return b.String(), ok
}

// encodeWords writes s as encoded words of UTF-8 in base64 (RFC 2047 §4.1), each
// within 75 bytes, separated by one blank.
func encodeWords(s string) string {
	const chunk = 39 // bytes: 52 of base64 and 12 around them fit behind "Subject: "
	var b strings.Builder
	for len(s) > 0 {
		n := min(chunk, len(s))
		for n < len(s) && n > 1 && !utf8.RuneStart(s[n]) {
			n--
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(s[:n])) + "?=")
		s = s[n:]
	}
	return b.String()
}
