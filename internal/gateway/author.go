package gateway

import (
	netmail "net/mail"
	"strings"

	"sluice/internal/envelope"
	"sluice/internal/mail"
)

// author returns the address in the From field, the null address if there isn't
// exactly one field with exactly one address.
func author(header []mail.Field) envelope.Address {
	var value string
	n := 0
	for _, f := range header {
		if isNamed(f.Name, "from") {
			value = f.Value
			n++
		}
	}
	if n != 1 || len(value) > 8192 {
		return envelope.Address{}
	}
	return oneAddress(unfold(value))
}

// oneAddress reads the single address of an unfolded From field. What net/mail
// can't read gets a second, simpler reading: comments and quoted strings taken
// out, the one <address> that is left. The null address means none, or several.
func oneAddress(value string) envelope.Address {
	if list, err := netmail.ParseAddressList(value); err == nil {
		if len(list) != 1 {
			return envelope.Address{}
		}
		return checked(list[0].Address)
	}
	plain := withoutComments(value)
	open, end := strings.IndexByte(plain, '<'), strings.LastIndexByte(plain, '>')
	if open < 0 || end < open || strings.Count(plain, "<") != 1 || strings.Count(plain, ">") != 1 {
		return envelope.Address{}
	}
	return checked(strings.TrimSpace(plain[open+1 : end]))
}

func checked(s string) envelope.Address {
	a := envelope.Parse(s)
	if a.Local == "" || !envelope.ValidDomain(a.Domain) || strings.ContainsAny(s, " \t,;") && !strings.HasPrefix(s, `"`) {
		return envelope.Address{}
	}
	return a
}

// withoutComments takes comments and quoted strings out of a structured field.
func withoutComments(s string) string {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case quoted:
			quoted = c != '"'
		case c == '"' && depth == 0:
			quoted = true
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}
