package mail

import (
	"net/url"
	"sort"
	"strconv"
	"strings"
)

const (
	// maxStructured is the longest Content- field that is taken apart.
	maxStructured = 64 << 10
	maxParams     = 200
)

// isMessage reports whether the part's body is a message of its own.
func (p *Part) isMessage() bool { return p.Type == "message/rfc822" || p.Type == "message/global" }

// describe fills in what the header says. Type is the default type, or "".
func (p *Part) describe() {
	standard := p.Type
	if standard == "" {
		standard = "text/plain"
	}
	p.Type, p.Params = parseMedia(p.Header.Get("Content-Type"))
	if p.Type == "" {
		p.Type = standard
	}
	disposition, params := parseMedia(p.Header.Get("Content-Disposition"))
	switch {
	case strings.HasPrefix(disposition, "attachment"):
		p.Disposition = "attachment"
	case strings.HasPrefix(disposition, "inline"):
		p.Disposition = "inline"
	case disposition != "":
		p.Disposition = "attachment" // RFC 2183 §2.8: unknown ones are attachments
	}
	p.Name = decodeWords(params["filename"])
	if p.Name == "" {
		p.Name = decodeWords(p.Params["name"])
	}
	p.Encoding, p.coding = parseCoding(p.Header.Get("Content-Transfer-Encoding"))
}

// parseMedia reads a Content-Type or Content-Disposition field as leniently as
// can be: what is no parameter is skipped, of several with the same name the
// first counts. It takes linear time.
func parseMedia(v string) (string, map[string]string) {
	v = stripComments(v[:min(len(v), maxStructured)])
	head, rest, _ := strings.Cut(v, ";")
	typ := strings.ToLower(strings.Trim(strings.TrimSpace(head), `"'`))
	if main, sub, ok := strings.Cut(typ, "/"); ok {
		sub, _, _ = strings.Cut(strings.TrimSpace(sub), " ")
		typ = strings.TrimSpace(main) + "/" + sub
	} else if i := strings.IndexAny(typ, " \t"); i >= 0 {
		typ = typ[:i]
	}
	switch typ {
	case "text":
		typ = "text/plain"
	case "multipart":
		typ = "multipart/mixed"
	}
	params := map[string]string{}
	var pieces []piece
	for n := 0; rest != "" && n < maxParams; n++ {
		var name, value string
		var quoted bool
		name, value, quoted, rest = nextParam(rest)
		if name == "" {
			continue
		}
		if base, section, ok := strings.Cut(name, "*"); ok && !(quoted && section == "") {
			pieces = append(pieces, piece{base, section, value})
			continue
		}
		if _, ok := params[name]; !ok {
			params[name] = value
		}
	}
	joinPieces(params, pieces)
	return typ, params
}

// nextParam reads up to the next ';'.
func nextParam(s string) (name, value string, quoted bool, rest string) {
	s = strings.TrimLeft(s, " \t;")
	eq := strings.IndexAny(s, "=;")
	if eq < 0 || s[eq] == ';' {
		if eq >= 0 {
			rest = s[eq+1:]
		}
		return "", "", false, rest
	}
	name = strings.ToLower(strings.TrimSpace(s[:eq]))
	s = strings.TrimLeft(s[eq+1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		stops := "; \t"
		if name == "filename" || name == "name" {
			stops = ";" // names with blanks often lack their quotes
		}
		// Elsewhere a blank ends the value: perhaps the ';' is missing.
		end := strings.IndexAny(s, stops)
		if end < 0 {
			end = len(s)
		}
		return name, strings.TrimSpace(s[:end]), false, s[end:]
	}
	var b strings.Builder
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	if i == len(s) { // the closing quote is missing
		value, rest, _ = strings.Cut(s[1:], ";")
		return name, strings.TrimSpace(value), true, rest
	}
	return name, b.String(), true, s[i+1:]
}

// piece is a section of a parameter in the form of RFC 2231.
type piece struct{ base, section, value string }

// joinPieces puts together name*0, name*1* … and name*; they count before a
// plain parameter of that name.
func joinPieces(params map[string]string, pieces []piece) {
	number := func(p piece) int {
		n, err := strconv.Atoi(strings.TrimSuffix(p.section, "*"))
		if err != nil {
			return 0
		}
		return n
	}
	sort.SliceStable(pieces, func(i, j int) bool {
		if pieces[i].base != pieces[j].base {
			return pieces[i].base < pieces[j].base
		}
		return number(pieces[i]) < number(pieces[j])
	})
	for i := 0; i < len(pieces); {
		base, set := pieces[i].base, ""
		var b strings.Builder
		for first := true; i < len(pieces) && pieces[i].base == base; i++ {
			v := pieces[i].value
			if pieces[i].section == "" || strings.HasSuffix(pieces[i].section, "*") {
				if first {
					if parts := strings.SplitN(v, "'", 3); len(parts) == 3 {
						set, v = parts[0], parts[2]
					}
				}
				if u, err := url.PathUnescape(v); err == nil {
					v = u
				}
			}
			first = false
			b.WriteString(v)
		}
		if b.Len() > 0 {
			params[base] = toUTF8(b.String(), set)
		}
	}
}

// stripComments removes comments (RFC 5322 §3.2.2) outside quotes. An unclosed one
// is kept as text.
func stripComments(v string) string {
	if !strings.Contains(v, "(") {
		return v
	}
	var b strings.Builder
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && i+1 < len(v):
			if depth == 0 {
				b.WriteByte(c)
				b.WriteByte(v[i+1])
			}
			i++
		case quoted || c == '"' && depth == 0:
			if c == '"' {
				quoted = !quoted
			}
			b.WriteByte(c)
		case c == '(':
			if depth == 0 {
				start = i
			}
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	if depth > 0 {
		b.WriteString(v[start:])
	}
	return b.String()
}

// coding is a transfer encoding as we read it.
type coding uint8

const (
	codingIdentity coding = iota
	codingBase64
	codingQP
	codingUnknown // read as it is
)

// isIdentity reports whether the bytes stand for themselves.
func (c coding) isIdentity() bool { return c == codingIdentity || c == codingUnknown }

// parseCoding reads a Content-Transfer-Encoding field. Labels in the wild bear
// quotes, semicolons, comments, plurals.
func parseCoding(v string) (string, coding) {
	label := strings.ToLower(stripComments(v[:min(len(v), maxStructured)]))
	label = strings.Trim(label, " \t\"';:,.<>")
	if i := strings.IndexAny(label, " \t\";,"); i > 0 {
		label = label[:i]
	}
	plain := strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(label, "-", ""), "_", ""), "s")
	switch plain {
	case "", "7bit", "8bit", "binary", "7", "8", "none", "identity", "unencoded", "usascii", "utf8", "plain", "text", "text/plain":
		return label, codingIdentity
	case "base64":
		return label, codingBase64
	case "quotedprintable":
		return label, codingQP
	}
	return label, codingUnknown
}
