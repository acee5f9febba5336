package rules

import (
	netmail "net/mail"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/publicsuffix"

	"sluice/internal/mail"
)

// fact is one of our own functions, called in .cf files as eval:name(). It
// returns how often what it looks for is there. Patterns are for text; a fact
// compares what a pattern can't.
type fact func(m *message) int

// ownSymbols are names that the engine sets for metas: which way the mail goes,
// and whether our own relay or this machine handed it over.
var ownSymbols = []string{"__SL_OUTBOUND", "__SL_RELAY", "__SL_LOCAL"}

// facts are all of them by name. Names begin with sluice_, so that none is
// taken for one of SpamAssassin's. Read-only.
var facts = map[string]fact{
	"sluice_subject_capitals":    subjectCapitals,
	"sluice_reply_to_elsewhere":  replyToElsewhere,
	"sluice_name_holds_address":  nameHoldsAddress,
	"sluice_link_text_elsewhere": linkTextElsewhere,
	"sluice_links_elsewhere":     linksElsewhere,
	"sluice_html_only":           htmlOnly,
	"sluice_little_text":         littleText,
	"sluice_html_parts":          func(m *message) int { return m.content.HTML.Parts },
	"sluice_html_form":           func(m *message) int { return m.content.HTML.Forms },
	"sluice_html_script":         func(m *message) int { return m.content.HTML.Scripts + m.content.HTML.Iframes },
	"sluice_base64_ascii":        base64ASCII,
	"sluice_date_shifted":        dateShifted,
	"sluice_many_strangers":      manyStrangers,
	"sluice_gibberish":           gibberish,
}

func (m *message) countParts(mediaType string) int {
	n := 0
	for _, p := range m.parts {
		if p.Type == mediaType {
			n++
		}
	}
	return n
}

// subjectCapitals: a subject of some length without a lower-case letter.
func subjectCapitals(m *message) int {
	letters := 0
	for _, r := range m.content.Subject {
		if unicode.IsLower(r) {
			return 0
		}
		if r < 0x250 && unicode.IsUpper(r) {
			letters++
		}
	}
	return hit(letters >= 8 && strings.Contains(strings.TrimSpace(m.content.Subject), " "))
}

func hit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mailboxes returns the addresses of all fields of a name.
func (m *message) mailboxes(field string) []mailbox {
	var out []mailbox
	for _, f := range m.header.All(field) {
		out = append(out, parseAddresses(f)...)
	}
	return out
}

// domainOf returns the organisation's domain of an address or a host name:
// example.org of mail.example.org.
func domainOf(addr string) string {
	host := strings.ToLower(strings.TrimSuffix(addr[strings.LastIndexByte(addr, '@')+1:], "."))
	if host == "" || len(host) > 255 {
		return ""
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return host
	}
	if d, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return d
	}
	return host
}

// replyToElsewhere: answers go to another organisation than the author's.
func replyToElsewhere(m *message) int {
	from, reply := m.mailboxes("From"), m.mailboxes("Reply-To")
	if len(from) == 0 || len(reply) == 0 {
		return 0
	}
	authors := make(map[string]bool, len(from))
	for _, f := range from {
		authors[domainOf(f.addr)] = true
	}
	for _, r := range reply {
		if authors[domainOf(r.addr)] {
			return 0
		}
	}
	return 1
}

// nameHoldsAddress: the author's name is an address of another organisation,
// and nothing else in the header vouches for it, as calendar services do.
func nameHoldsAddress(m *message) int {
	for _, f := range m.mailboxes("From") {
		for word := range strings.FieldsFuncSeq(f.name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`<>()[]",;:'`, r) }) {
			at := strings.IndexByte(word, '@')
			if at < 1 || !strings.Contains(word[at:], ".") || domainOf(word) == domainOf(f.addr) {
				continue
			}
			known := append(m.mailboxes("Reply-To"), m.mailboxes("Sender")...)
			for _, k := range known {
				if domainOf(k.addr) == domainOf(word) {
					return 0
				}
			}
			return 1
		}
	}
	return 0
}

// hostOf returns the host of a web link, "" for others.
func hostOf(link string) string {
	if len(link) > 4<<10 {
		link = link[:4<<10]
	}
	lower := strings.ToLower(link)
	if strings.HasPrefix(lower, "www.") {
		link = "http://" + link
	} else if !strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") {
		return ""
	}
	u, err := url.Parse(link)
	if err != nil {
		// A link that is broken behind its host still leads there.
		_, rest, _ := strings.Cut(link, "://")
		rest = rest[strings.LastIndexByte(rest[:end(rest, "/?#")], '@')+1:]
		return strings.ToLower(rest[:end(rest, "/?#:")])
	}
	return strings.ToLower(u.Hostname())
}

// end is the index of the first of chars in s, or its length.
func end(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

// linkTextElsewhere: a link shows one organisation's host and leads to another.
func linkTextElsewhere(m *message) int {
	n := 0
	for _, u := range m.content.URIs {
		text := strings.TrimSpace(u.Text)
		if text == "" || len(text) > 300 || strings.ContainsAny(text, " \n") {
			continue
		}
		shown, target := hostOf(text), hostOf(u.URI)
		if shown != "" && target != "" && strings.Contains(shown, ".") && domainOf(shown) != domainOf(target) {
			n++
		}
	}
	return n
}

// linksElsewhere: there are links, and none leads to the author's organisation.
func linksElsewhere(m *message) int {
	from := m.mailboxes("From")
	if len(from) == 0 {
		return 0
	}
	own, links := domainOf(from[0].addr), 0
	for _, u := range m.content.URIs {
		host := hostOf(u.URI)
		if host == "" {
			continue
		}
		if domainOf(host) == own {
			return 0
		}
		links++
	}
	return hit(links > 0)
}

// htmlOnly: text is there as HTML and not as plain text.
func htmlOnly(m *message) int {
	return hit(m.countParts("text/html") > 0 && m.countParts("text/plain") == 0)
}

// littleText: HTML with pictures and links but hardly a word.
func littleText(m *message) int {
	h := m.content.HTML
	if h.Parts == 0 || h.Images == 0 || len(m.content.URIs) == 0 {
		return 0
	}
	n := 0
	for _, p := range m.content.Paragraphs {
		if n += len(p); n > 200 {
			return 0
		}
	}
	return 1
}

// base64ASCII: text that needed no encoding is in base64, in all its parts.
func base64ASCII(m *message) int {
	encoded := false
	for _, p := range m.parts {
		if p.IsLeaf() && strings.HasPrefix(p.Type, "text/") && p.Disposition != "attachment" {
			if p.Encoding != "base64" {
				return 0
			}
			encoded = true
		}
	}
	if !encoded || len(m.content.Raw) == 0 {
		return 0
	}
	for _, s := range m.content.Raw {
		for i := range len(s) {
			if s[i] >= 0x80 {
				return 0
			}
		}
	}
	return 1
}

// dateShifted: the Date is more than four days away from when the mail was
// received first, as its topmost Received field tells.
func dateShifted(m *message) int {
	date, ok := parseDate(mail.Field{Value: m.header.Get("Date")})
	if !ok {
		return 0
	}
	for _, f := range m.header.All("Received") {
		i := strings.LastIndexByte(f.Value, ';')
		if i < 0 {
			continue
		}
		if got, ok := parseDate(mail.Field{Value: f.Value[i+1:]}); ok {
			return hit(got.Sub(date).Abs() > 4*24*time.Hour)
		}
	}
	return 0
}

// manyStrangers: the fields To and Cc name people of ten organisations or more.
func manyStrangers(m *message) int {
	seen := make(map[string]bool)
	for _, field := range [...]string{"To", "Cc"} {
		for _, a := range m.mailboxes(field) {
			if strings.Contains(a.addr, "@") {
				seen[domainOf(a.addr)] = true
			}
		}
	}
	return hit(len(seen) >= 10)
}

// gibberish counts long words without sense: 20 small letters or more, six
// consonants in a row among them.
func gibberish(m *message) int {
	n := 0
	for _, p := range m.content.Paragraphs {
		for word := range strings.FieldsSeq(p) {
			if len(word) >= 20 && len(word) <= 80 && senseless(word) {
				n++
			}
		}
	}
	return n
}

func senseless(word string) bool {
	row, longest := 0, 0
	for i := range len(word) {
		switch c := word[i]; {
		case c < 'a' || c > 'z':
			return false
		case strings.IndexByte("aeiouy", c) >= 0:
			row = 0
		default:
			row++
			longest = max(longest, row)
		}
	}
	return longest >= 6
}

func parseDate(f mail.Field) (time.Time, bool) {
	t, err := netmail.ParseDate(f.Text())
	return t, err == nil
}
