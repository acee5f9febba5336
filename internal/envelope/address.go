package envelope

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Address is an envelope address. The zero value is the null address (<>).
// Addresses are values and may be compared.
type Address struct {
	// Local is the part before the last '@', as it was written, without quotes
	// if they weren't needed.
	Local string
	// Domain is the lower-case domain in A-label form, or a literal such as
	// [192.0.2.1]; "" if the address has none.
	Domain string
	// raw is the address as it was given, without angle brackets.
	raw string
}

// Parse reads a path as a milter or an SMTP client gives it: with or without
// angle brackets, with or without a source route. It never fails: what isn't an
// address keeps its text, so that nothing about it is lost.
func Parse(path string) Address {
	s := strings.TrimSpace(path)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		s = s[1 : len(s)-1]
	}
	a := Address{raw: s}
	if strings.HasPrefix(s, "@") { // source route, RFC 5321 §4.1.2 (obsolete)
		if _, rest, ok := strings.Cut(s, ":"); ok {
			s = rest
		}
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		a.Local = unquote(s)
		return a
	}
	a.Local, a.Domain = unquote(s[:at]), ALabel(s[at+1:])
	return a
}

// ErrNotAddress is what ParseStrict wraps.
var ErrNotAddress = errors.New("not a mail address (local@domain)")

// ParseStrict reads an address that a person wrote into a configuration: it
// must have a local part and a domain made of letters, digits, hyphens and
// dots (or a U-label), without blanks or controls.
func ParseStrict(s string) (Address, error) {
	a := Parse(s)
	unquotedAt := strings.IndexByte(s, '@') != strings.LastIndexByte(s, '@') && s[0] != '"'
	if a.Local == "" || unquotedAt || len(s) > maxStrict || a.raw != s || !validDomain(a.Domain) || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' }) {
		return Address{}, fmt.Errorf("%q: %w", s, ErrNotAddress)
	}
	return a, nil
}

// maxStrict bounds an address that a person wrote: a local part of 64 and a domain
// of 255 bytes (RFC 5321 §4.5.3.1).
const maxStrict = 64 + 1 + 255

// ValidDomain reports whether s, in any case and as U- or A-label, is a domain
// name that mail can be addressed to, or an address literal.
func ValidDomain(s string) bool { return validDomain(ALabel(s)) }

func validDomain(d string) bool {
	if d == "" || len(d) > 255 {
		return false
	}
	if strings.HasPrefix(d, "[") && strings.HasSuffix(d, "]") {
		_, err := netip.ParseAddr(strings.TrimPrefix(d[1:len(d)-1], "ipv6:"))
		return err == nil
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// maxULabels bounds a domain that is turned into A-labels: 255 characters of at most
// 4 bytes. The time it takes grows with the square of a label's length, and whoever
// writes an address could write a long one.
const maxULabels = 4 * 255

// ALabel returns a domain in lower case, its international labels in ASCII form
// (RFC 5890), without a trailing dot. A name that has no such form is returned
// in lower case.
func ALabel(domain string) string {
	d := strings.ToLower(strings.TrimSuffix(domain, "."))
	if len(d) > maxULabels {
		return d
	}
	for i := range len(d) {
		if d[i] >= 0x80 {
			if a, err := idna.Lookup.ToASCII(d); err == nil {
				return strings.ToLower(a)
			}
			return d
		}
	}
	return d
}

// IsNull reports whether the address is the null one (<>).
func (a Address) IsNull() bool { return a.raw == "" && a.Local == "" && a.Domain == "" }

// String returns the address as it was given, without angle brackets: "" for
// the null address.
func (a Address) String() string {
	if a.raw != "" || a.Domain == "" {
		if a.raw == "" {
			return a.Local
		}
		return a.raw
	}
	return a.Local + "@" + a.Domain
}

// Key returns the address in the form it is compared in: lower case, A-label.
func (a Address) Key() string {
	if a.Domain == "" {
		return strings.ToLower(a.Local)
	}
	return strings.ToLower(a.Local) + "@" + a.Domain
}

// unquote takes the quotes off a quoted local part (RFC 5321 §4.1.2).
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Keys returns the keys under which policies of an address are looked up, the
// most specific first (the order of amavis' SQL keys):
//
//	user+ext@sub.example.org  user@sub.example.org
//	@sub.example.org  @.sub.example.org  @.example.org  @.org  @.
//
// delimiters is a set of characters, as Postfix's recipient_delimiter; the first
// one that stands inside the local part, but not at its start, begins the
// extension. At most the 20 shortest of the parent domains are kept; a domain literal
// has no parents. The null address has the key "@." alone.
func Keys(a Address, delimiters string) []string {
	keys := make([]string, 0, 8)
	local := strings.ToLower(a.Local)
	if a.Domain != "" {
		if local != "" {
			keys = append(keys, local+"@"+a.Domain)
			if i := strings.IndexAny(local, delimiters); delimiters != "" && i > 0 {
				keys = append(keys, local[:i]+"@"+a.Domain)
			}
		}
		if a.Domain[0] != '.' { // no domain, and "@" before it would mean another key
			keys = append(keys, "@"+a.Domain)
		}
		keys = append(keys, parents(a.Domain)...)
	}
	return append(keys, "@.")
}

func parents(domain string) []string {
	if strings.HasPrefix(domain, "[") {
		return nil
	}
	labels := strings.Split(domain, ".")
	if len(labels) > 20 {
		labels = labels[len(labels)-20:]
	}
	keys := make([]string, 0, len(labels))
	for i, l := range labels {
		if l != "" {
			keys = append(keys, "@."+strings.Join(labels[i:], "."))
		}
	}
	return keys
}
