package gateway

import (
	"slices"
	"strings"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

// ticketField bears the HMAC of a copy that we sent ourselves. It is removed at
// sight, also where a policy asks for no change at all.
const ticketField = "x-sluice-ticket"

// isVerdictField reports whether a field of that name says what a filter thinks
// of the message, so that an arriving one is forged or foreign. X-Spam-Prev-*
// keeps what SpamAssassin replaced and stays.
func isVerdictField(name string) bool {
	if hasName(name, "x-spam-") {
		return !hasName(name, "x-spam-prev-")
	}
	return hasName(name, "x-virus-") || hasName(name, "x-sluice-") || isNamed(name, "x-quarantine-id")
}

// isResults reports whether the field is an Authentication-Results.
func isResults(name string) bool { return isNamed(name, "authentication-results") }

// isNamed compares a field's name as MTAs do: without regard to case in ASCII
// alone, and to the blanks that obsolete syntax allows before the colon (RFC 5322
// §4.5). want is in lower case.
func isNamed(name, want string) bool {
	return hasName(name, want) && strings.Trim(name[len(want):], " \t\r\n") == ""
}

// hasName is isNamed for the front of a name.
func hasName(name, front string) bool {
	if len(name) < len(front) {
		return false
	}
	for i := range len(front) {
		if lower(name[i]) != front[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// fieldKey is a name in the form in which isNamed compares.
func fieldKey(name string) string {
	b := []byte(strings.TrimRight(name, " \t\r\n"))
	for i, c := range b {
		b[i] = lower(c)
	}
	return string(b)
}

// removals lists the deletions that take forged fields off the message, the
// highest of a name first, so that no deletion moves one that follows. ids are
// our authserv-ids as authservKey gives them. With ticketsOnly everything but a
// ticket stays.
func removals(fields []mail.Field, ids []string, ticketsOnly bool) []policy.FieldChange {
	var changes []policy.FieldChange
	seen := map[string]int{}
	for _, f := range fields {
		results := isResults(f.Name)
		if !results && !isVerdictField(f.Name) {
			continue
		}
		key := fieldKey(f.Name)
		seen[key]++
		if ticketsOnly && key != ticketField || results && !claimsOurID(f.Value, ids) {
			continue
		}
		changes = append(changes, policy.FieldChange{
			Op: policy.DeleteField, Name: strings.TrimRight(f.Name, " \t\r\n"), Index: seen[key],
		})
	}
	slices.Reverse(changes)
	return changes
}

// authservKey is the form in which authserv-ids are compared: the part before a
// '/', as a domain in lower case and A-label form (RFC 8616 §4).
func authservKey(id string) string {
	id, _, _ = strings.Cut(id, "/")
	return envelope.ALabel(strings.TrimSpace(id))
}

// claimsOurID reports whether an Authentication-Results field has to go: its
// authserv-id is one of ids, or its beginning can't be read (an open comment or
// quoted string, nothing at all), so that another reader might take it for ours.
// Fields that leave the id out and begin with a method go only if they name one
// of ids anywhere.
func claimsOurID(value string, ids []string) bool {
	id, rest, ok := authservID(value)
	if !ok {
		return true
	}
	key := authservKey(id)
	for _, own := range ids {
		if own != "" && key == own {
			return true
		}
	}
	if strings.HasPrefix(rest, "=") { // no id: "spf=pass …"
		plain := strings.ToLower(strings.ReplaceAll(value, `\`, ""))
		for _, own := range ids {
			if own != "" && strings.Contains(plain, own) {
				return true
			}
		}
	}
	return false
}

// authservID reads the authserv-id at the beginning of a field (RFC 8601 §2.2):
// optional comments and folds, then a token or a quoted string. rest is what
// follows, comments and blanks skipped. ok is false if there is neither.
func authservID(value string) (id, rest string, ok bool) {
	s, ok := skipCFWS(value)
	if !ok || s == "" {
		return "", "", false
	}
	if s[0] == '"' {
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				if i++; i < len(s) {
					b.WriteByte(s[i])
				}
			case '\r', '\n': // a fold inside the quotes
			case '"':
				rest, ok = skipCFWS(s[i+1:])
				return b.String(), rest, ok && strings.TrimSpace(b.String()) != ""
			default:
				b.WriteByte(s[i])
			}
		}
		return "", "", false
	}
	n := 0
	for n < len(s) && isIDByte(s[n]) {
		n++
	}
	if n == 0 {
		return "", "", false
	}
	rest, ok = skipCFWS(s[n:])
	return s[:n], rest, ok
}

// isIDByte accepts the bytes of a MIME token (RFC 2045 §5.1), those above ASCII
// (RFC 8616), and '/', which separated a version in older forms.
func isIDByte(c byte) bool {
	return c > ' ' && c != 0x7f && !strings.ContainsRune(`()<>@,;:\"[]?=`, rune(c))
}

// skipCFWS skips blanks, folds and nested comments (RFC 5322 §3.2.2); ok is false
// if a comment isn't closed.
func skipCFWS(s string) (rest string, ok bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			i++
		case depth > 0, c == ' ', c == '\t', c == '\r', c == '\n':
		default:
			return s[i:], true
		}
	}
	return "", depth == 0
}
