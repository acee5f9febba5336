package policy

import (
	"strings"

	"sluice/internal/verdict"
)

// MaxRejectText bounds reject_text, in bytes, so that a reply stays within one
// line of SMTP (RFC 5321 §4.5.3.1.5: 512 bytes).
const MaxRejectText = 300

// refusal is the 5xx for a decision: the kind of trouble, the site's own text,
// the record's ID. Nothing that the sender wrote is in it.
func refusal(d *verdict.Decision, text, id string) Reply {
	r := Reply{Code: 550, Enhanced: "5.7.1"}
	what := "Message refused"
	switch d.Class {
	case verdict.ClassVirus:
		what = "Message refused: contains malware"
	case verdict.ClassBanned:
		what = "Message refused: attachment not allowed"
		if d.Cause != nil && d.Cause.Symbol == SymbolSizeLimit {
			r.Code, r.Enhanced, what = 552, "5.3.4", "Message refused: too large for this recipient"
		}
	case verdict.ClassAmbiguous:
		r.Enhanced, what = "5.6.0", "Message refused: malformed, mail programs would read it differently"
	case verdict.ClassSpam, verdict.ClassMarked:
		what = "Message refused as spam"
	case verdict.ClassFailed:
		what = "Message refused: content could not be checked"
	case verdict.ClassUnchecked:
		what = "Message refused: has content that can not be checked"
	}
	if text = strings.TrimSpace(ascii(text, MaxRejectText)); text != "" {
		what += ". " + text
	}
	r.Text = what + ending(id)
	return r
}

// deferral is the 451 for a class.
func deferral(c verdict.Class, id string) Reply {
	r := Reply{Code: 451, Enhanced: "4.7.1"}
	what := "Message not accepted now"
	switch c {
	case verdict.ClassFailed:
		what = "Content could not be checked"
	case verdict.ClassClean:
		r.Enhanced = "4.3.0"
	}
	r.Text = what + ", please try again later" + ending(id)
	return r
}

func ending(id string) string { return " (id " + ascii(id, 64) + ")" }

// ascii makes one line of printable ASCII of at most max bytes.
func ascii(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ':
			return ' '
		case r > '~':
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), max)]
}
