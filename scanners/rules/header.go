package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"sluice/internal/mail"
)

// target is what a header rule looks at (Conf, "header").
type target struct {
	// name is the field's, as written; the pseudo-fields ALL, ToCc, EnvelopeFrom
	// and MESSAGEID are told by exactly these spellings.
	name string
	// raw: neither unfolded nor decoded. addr and display: the addresses or the
	// names of an address field. first and last: only that occurrence.
	raw, addr, display, first, last bool
}

// headerTest reads "Name:addr =~ /…/ [if-unset: …]"; the name may not be fuller
// than what SpamAssassin takes.
var headerTest = regexp.MustCompile(`^(\S+)\s*([=!]~)\s*(\S.*?)(?:\s+\[if-unset:\s*(.*)\])?$`)

// parseHeaderRule reads what follows the name of a header or mimeheader rule.
func parseHeaderRule(u *rule, text string) error {
	if call, ok := strings.CutPrefix(text, "eval:"); ok {
		return parseEval(u, call)
	}
	var err error
	if name, ok := strings.CutPrefix(text, "exists:"); ok {
		u.exists = true
		u.target, err = parseTarget(u.kind, strings.TrimSpace(name))
		return err
	}
	m := headerTest.FindStringSubmatch(text)
	if m == nil {
		return errors.New("a header rule reads: NAME Field =~ /pattern/")
	}
	if u.target, err = parseTarget(u.kind, m[1]); err != nil {
		return err
	}
	u.negated = m[2] == "!~"
	if strings.Contains(text, "[if-unset:") && strings.HasSuffix(text, "]") {
		u.unset, u.hasUnset = m[4], true
	}
	u.re, err = compileRegex(m[3])
	return err
}

// parseTarget reads a field's name and its modifiers.
func parseTarget(k kind, s string) (target, error) {
	name, rest, _ := strings.Cut(s, ":")
	t := target{name: name}
	if name == "" || len(name) > maxName || strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return t, fmt.Errorf("%q is not the name of a header field", cut(s, 40))
	}
	for mod := range strings.SplitSeq(rest, ":") {
		switch mod {
		case "":
		case "raw":
			t.raw = true
		case "addr":
			t.addr = true
		case "name":
			t.display = true
		case "first":
			t.first = true
		case "last":
			t.last = true
		case "host", "domain", "ip", "revip":
			return t, &cannot{"header", "needs the modifier :" + mod}
		default:
			return t, fmt.Errorf("unknown modifier :%s", cut(mod, 20))
		}
	}
	if strings.HasPrefix(name, "X-Spam-Relays-") || strings.HasPrefix(name, "ALL-") {
		return t, &cannot{"header", "needs " + name + ", the parsed trail of relays"}
	}
	if k == kindMIMEHeader && (t.addr || t.display) {
		return t, errors.New("mimeheader rules take no :addr and no :name")
	}
	return t, nil
}

// messageIDs are the fields of the pseudo-field MESSAGEID.
var messageIDs = [...]string{"X-Message-Id", "Resent-Message-Id", "X-Original-Message-ID", "Message-Id"}

// value returns the text a rule on t sees, each occurrence ended by a newline,
// whether there is one at all, and whether that is all of it.
func (t target) value(m *message) (value string, present, whole bool) {
	switch t.name {
	case "ALL":
		value, whole = t.whole(m.header)
		return value, m.header != nil, whole
	case "EnvelopeFrom":
		return m.sender, m.sender != "", true
	case "ToCc":
		return t.join(append(m.header.All("To"), m.header.All("Cc")...))
	case "MESSAGEID":
		var all []mail.Field
		for _, n := range messageIDs {
			all = append(all, m.header.All(n)...)
		}
		return t.join(all)
	}
	return t.join(m.header.All(t.name))
}

// maxFieldText bounds what rules see of all fields of one name, in bytes. A
// header section has at most 1 MiB, so that only decoding can lead past it.
const maxFieldText = 1 << 20

// join is the text of the fields; see value.
func (t target) join(fields []mail.Field) (value string, present, whole bool) {
	if len(fields) == 0 {
		return "", false, true
	}
	switch {
	case t.first:
		fields = fields[:1]
	case t.last:
		fields = fields[len(fields)-1:]
	}
	if len(fields) == 1 && !t.addr && !t.display && !t.raw {
		value, whole = clip(collapse(fields[0].Text()) + "\n")
		return value, true, whole
	}
	var b strings.Builder
	whole = true
	for _, f := range fields {
		if b.Len() > maxFieldText {
			break // clip sees it
		}
		switch {
		case t.addr, t.display:
			boxes := parseAddresses(f)
			whole = whole && len(boxes) < maxMailboxes
			for _, a := range boxes {
				v := a.addr
				if t.display {
					v = a.name
				}
				if v != "" {
					b.WriteString(v)
					b.WriteByte('\n')
				}
			}
		case t.raw:
			b.WriteString(strings.TrimLeft(f.Value, " "))
			b.WriteByte('\n')
		default:
			b.WriteString(collapse(f.Text()))
			b.WriteByte('\n')
		}
	}
	value, fits := clip(b.String())
	if t.addr || t.display {
		value = strings.TrimSuffix(value, "\n")
	}
	return value, true, whole && fits
}

// clip cuts a text at maxFieldText and reports whether it was within.
func clip(s string) (string, bool) {
	if len(s) > maxFieldText {
		return s[:maxFieldText], false
	}
	return s, true
}

// whole is the header section as one text, and whether that is all of it.
func (t target) whole(h *mail.Header) (string, bool) {
	if h == nil {
		return "", true
	}
	var b strings.Builder
	for _, f := range h.Fields {
		if b.Len() > maxFieldText {
			break // clip sees it
		}
		b.WriteString(f.Name)
		b.WriteByte(':')
		if t.raw {
			b.WriteString(f.Value)
		} else {
			b.WriteByte(' ')
			b.WriteString(collapse(f.Text()))
		}
		b.WriteByte('\n')
	}
	return clip(b.String())
}

// collapse makes runs of tabs and line ends one blank, as unfolding does in
// SpamAssassin.
func collapse(s string) string {
	if !strings.ContainsAny(s, "\t\r\n") {
		return s
	}
	var b strings.Builder
	blank := false
	for i := range len(s) {
		switch c := s[i]; c {
		case '\t', '\r', '\n':
			if !blank {
				b.WriteByte(' ')
			}
			blank = true
		case ' ':
			if !blank {
				b.WriteByte(' ')
			}
		default:
			b.WriteByte(c)
			blank = false
		}
	}
	return b.String()
}

// mailbox is one address of a field, with its name.
type mailbox struct{ name, addr string }

// maxMailboxes bounds the addresses that are taken out of one field.
const maxMailboxes = 10_000

// parseAddresses takes the mailboxes out of an address field, leniently: what a
// person would take for a name is one, whatever RFC 5322 says.
func parseAddresses(f mail.Field) []mailbox {
	var out []mailbox
	value := f.Value
	if strings.ContainsAny(value, "\r\n") {
		value = strings.ReplaceAll(strings.ReplaceAll(value, "\r", ""), "\n", "")
	}
	for _, item := range splitList(value) {
		if m, ok := parseMailbox(item); ok {
			m.name = mail.Field{Value: m.name}.Text()
			out = append(out, m)
		}
		if len(out) == maxMailboxes {
			break
		}
	}
	return out
}

// splitList cuts at commas and semicolons outside of quotes, comments and angle
// brackets.
func splitList(s string) []string {
	var out []string
	start, depth := 0, 0
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case (c == ',' || c == ';') && !angle:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// parseMailbox reads "Name <addr>", "addr (Name)" or "addr".
func parseMailbox(s string) (mailbox, bool) {
	s = strings.TrimSpace(s)
	if open := strings.LastIndexByte(s, '<'); open >= 0 {
		addr, _, _ := strings.Cut(s[open+1:], ">")
		return mailbox{unquote(s[:open]), strings.TrimSpace(addr)}, true
	}
	if open := strings.IndexByte(s, '('); open >= 0 {
		name := strings.TrimSuffix(strings.TrimSpace(s[open+1:]), ")")
		return mailbox{strings.TrimSpace(name), strings.TrimSpace(s[:open])}, true
	}
	if i := strings.IndexByte(s, ':'); i >= 0 { // a group's name
		s = strings.TrimSpace(s[i+1:])
	}
	return mailbox{"", s}, s != ""
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if strings.Contains(s, `\`) {
		s = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(s)
	}
	return s
}
