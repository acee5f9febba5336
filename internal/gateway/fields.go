package gateway

import (
	"slices"
	"strings"

	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/policy"
)

// Bounds of what we write.
const (
	maxStars  = 50
	maxTests  = 400
	maxReason = 128
)

// belowReceived is where our fields go: below the MTA's own Received, in one run.
const belowReceived = 1

// clamav is the name of the scanner whose answer X-Virus-Status tells.
const clamav = "clamav"

// bearer is what writing fields needs beside policy's Bearing.
type bearer struct {
	verdict *verdict.Verdict
	header  []mail.Field
	id      string   // of the record
	host    string   // named in X-Virus-Scanned
	ids     []string // our authserv-ids, as authservKey gives them
	// virusWanted is true if a recipient of the message has scan_virus on.
	virusWanted bool
}

// fieldChanges says what is done to the header of a message that goes on:
// forged fields off first, then the Subject, then ours below the MTA's Received.
func fieldChanges(b policy.Bearing, m bearer) []policy.FieldChange {
	changes := removals(m.header, m.ids, b.Untouched)
	if b.Untouched || b.Outbound {
		return changes
	}
	if len(b.Tags) > 0 && !keepsSubject(m.header) {
		changes = append(changes, subjectChanges(m.header, b.Tags)...)
	}
	ours := ourFields(b, m)
	slices.Reverse(ours) // each insertion moves the ones before it down
	return append(changes, ours...)
}

// ourFields lists the fields that tell the verdict, from the top down.
func ourFields(b policy.Bearing, m bearer) []policy.FieldChange {
	var fs []policy.FieldChange
	add := func(name, value string) {
		fs = append(fs, policy.FieldChange{Op: policy.InsertField, Name: name, Value: value, Index: belowReceived})
	}
	if b.Flag {
		add("X-Spam-Flag", "YES")
	}
	if b.SpamFields {
		add("X-Spam-Status", spamStatus(b))
		add("X-Spam-Score", shownScore(b))
		if level := spamLevel(b.Score); level != "" {
			add("X-Spam-Level", level)
		}
	}
	if _, asked := m.verdict.Run(clamav); asked && m.virusWanted {
		add("X-Virus-Scanned", "Sluice at "+ascii(m.host, 255))
	}
	add("X-Virus-Status", virusStatus(m))
	if b.Class > verdict.ClassMarked {
		add("X-Sluice-Class", classValue(b.Class, b.Cause))
	}
	add("X-Sluice-ID", ascii(m.id, 64))
	return fs
}

// spamStatus writes SpamAssassin's X-Spam-Status in its own form: tests sorted,
// "none" if there are none, folded at commas.
func spamStatus(b policy.Bearing) string {
	word := "No"
	if b.Flag {
		word = "Yes"
	}
	var s strings.Builder
	s.WriteString(word + ", score=" + shownScore(b) + " required=" + b.Required.Fixed(1) + " tests=")
	names := make([]string, 0, len(b.Symbols))
	for _, f := range b.Symbols {
		if n := symbol(f.Symbol); n != "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		s.WriteString("none")
		return s.String()
	}
	width := len("X-Spam-Status: ") + s.Len()
	for i, n := range names[:min(len(names), maxTests)] {
		if i > 0 {
			s.WriteByte(',')
			width++
		}
		// One byte is kept for the comma that follows.
		if width+len(n)+1 > lineWidth && width > 8 {
			s.WriteString("\n\t")
			width = 8
		}
		s.WriteString(n)
		width += len(n)
	}
	return s.String()
}

// shownScore rounds as SpamAssassin does: a mail that isn't marked and whose
// rounded score equals what is required shows a tenth less.
func shownScore(b policy.Bearing) string {
	score := b.Score.Fixed(1)
	if !b.Flag && score == b.Required.Fixed(1) {
		return (b.Required - verdict.Point/10).Fixed(1)
	}
	return score
}

// spamLevel is a star for each whole point, at most 50.
func spamLevel(s verdict.Score) string {
	n := int64(s) / int64(verdict.Point)
	return strings.Repeat("*", int(min(max(n, 0), maxStars)))
}

// virusStatus says Clean only if clamd looked at the whole mail, found nothing and
// somebody who gets the mail wanted it looked at.
func virusStatus(m bearer) string {
	if !m.virusWanted {
		return "Unchecked"
	}
	partly := false
	for _, f := range m.verdict.Findings {
		if f.Scanner != clamav {
			continue
		}
		switch f.Kind {
		case verdict.KindVirus:
			name := f.Detail
			if name == "" {
				name = f.Symbol
			}
			return "Infected (" + ascii(strings.NewReplacer("(", "_", ")", "_").Replace(name), maxReason) + ")"
		case verdict.KindUnchecked, verdict.KindFailed:
			partly = true
		}
	}
	if run, asked := m.verdict.Run(clamav); asked && run.Complete && !partly {
		return "Clean"
	}
	return "Unchecked"
}

// classValue writes X-Sluice-Class.
func classValue(c verdict.Class, cause *verdict.Finding) string {
	v := c.String()
	if cause == nil {
		return v
	}
	if s := symbol(cause.Symbol); s != "" {
		v += "; reason=" + s
	}
	if p := partPath(cause.Part); p != "" {
		v += "; part=" + p
	}
	return v
}

// symbol returns s with everything but letters, digits, '_', '-' and '.' replaced,
// within 128 bytes.
func symbol(s string) string {
	s = s[:min(len(s), maxReason)]
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, s)
}

// partPath keeps digits and dots: "2.1".
func partPath(s string) string {
	s = s[:min(len(s), 64)]
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return -1
	}, s)
}

// ascii returns s on one line of printable ASCII, at most limit bytes; all else
// becomes '?'.
func ascii(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r >= ' ' && r <= '~' {
			return r
		}
		return '?'
	}, s)
	return s[:min(len(s), limit)]
}

// subjectChanges tags the first and the last Subject (mail programs show one or
// the other), or makes one.
func subjectChanges(header []mail.Field, tags []string) []policy.FieldChange {
	var subjects []mail.Field
	for _, f := range header {
		if isNamed(f.Name, "subject") {
			subjects = append(subjects, f)
		}
	}
	if len(subjects) == 0 {
		return []policy.FieldChange{{
			Op: policy.InsertField, Name: "Subject", Value: strings.TrimRight(tagSubject("", tags), " "), Index: belowReceived,
		}}
	}
	which := []int{1}
	if len(subjects) > 1 {
		which = append(which, len(subjects))
	}
	changes := make([]policy.FieldChange, 0, len(which))
	for _, n := range which {
		f := subjects[n-1]
		changes = append(changes, policy.FieldChange{
			Op: policy.ReplaceField, Name: strings.TrimRight(f.Name, " \t"), Value: tagSubject(f.Value, tags), Index: n,
		})
	}
	return changes
}

// keepsSubject reports whether the message is signed or encrypted as a whole by
// S/MIME (RFC 8551) or PGP (RFC 3156): its header fields stay as they were signed.
func keepsSubject(header []mail.Field) bool {
	for _, f := range header {
		if !isNamed(f.Name, "content-type") {
			continue
		}
		value, _ := skipCFWS(unfold(f.Value))
		media, _, _ := strings.Cut(value, ";")
		media, _, _ = strings.Cut(media, "(")
		switch strings.ToLower(strings.Join(strings.Fields(media), "")) {
		case "multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted":
			return true
		}
	}
	return false
}
