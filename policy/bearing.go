package policy

import (
	"slices"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Bearing is what a message that goes on shows of the verdict (DESIGN §7).
type Bearing struct {
	// Untouched: no change at all (observe).
	Untouched bool
	// Outbound: nothing of the verdict is added.
	Outbound bool
	// SpamFields: X-Spam-Status, X-Spam-Score, X-Spam-Level.
	SpamFields bool
	// Flag: X-Spam-Flag: YES, and Yes in X-Spam-Status.
	Flag            bool
	Score, Required verdict.Score
	// Symbols counted into Score.
	Symbols []verdict.Finding
	// Tags are put before the Subject.
	Tags []string
	// Class (neither clean nor marked) makes X-Sluice-Class; Cause its reason and part.
	Class verdict.Class
	Cause *verdict.Finding
}

// look is what a recipient would notice of a message: his group. Numbers alone
// never make a group.
type look struct {
	observe, outbound, fields, flag bool
	// tag and unchecked are the subject tags.
	tag, unchecked string
	class          verdict.Class
}

func (m *combiner) look(i int) look {
	d, p := &m.ds[i], m.ps[i]
	switch {
	case p.Observe:
		return look{observe: true}
	case m.c.Direction == envelope.Outbound && p.Direction == envelope.Outbound:
		return look{outbound: true}
	}
	l := look{fields: p.ScanSpam && d.Score >= p.TagScore}
	if d.Class > verdict.ClassMarked {
		l.class = d.Class
	}
	if d.Action != verdict.Tag {
		return l
	}
	for _, c := range d.Classes {
		if c != d.Class && p.Actions[c] != verdict.Tag {
			continue
		}
		if c == verdict.ClassMarked || c == verdict.ClassSpam {
			l.flag, l.tag = true, p.SubjectTag
		} else {
			l.unchecked = p.UncheckedSubjectTag
		}
	}
	return l
}

// bear decides what the message shows for those who get it: one form for each
// group with re-injection, else one that serves all.
func (m *combiner) bear(getters []int) {
	groups := m.groups(getters)
	if len(groups) > 1 && len(groups) <= maxGroups && m.can.Reinject {
		largest := 0
		for i, g := range groups {
			if len(g) > len(groups[largest]) {
				largest = i
			}
		}
		for i, g := range groups {
			if i != largest {
				b, _ := m.bearing(g)
				m.out.Copies = append(m.out.Copies, Copy{Indexes: g, Bearing: b})
			}
		}
		m.out.Bearing, _ = m.bearing(groups[largest])
		return
	}
	var shown look
	m.out.Bearing, shown = m.bearing(getters)
	for _, i := range getters {
		if m.look(i) != shown {
			m.out.Compromise++
			m.note(NoteCompromise)
		}
	}
}

// groups parts recipients by their look, in the order in which they come.
func (m *combiner) groups(indexes []int) [][]int {
	place := map[look]int{}
	var groups [][]int
	for _, i := range indexes {
		l := m.look(i)
		n, ok := place[l]
		if !ok {
			n = len(groups)
			place[l], groups = n, append(groups, nil)
		}
		groups[n] = append(groups[n], i)
	}
	return groups
}

// bearing makes one form for all of these recipients: the flag if any policy
// marks the mail, the subject tags only if all have them, the highest score and
// the lowest threshold. An observing policy has no say beside others. In
// originating mail the verdict is shown to the outside only if it warns somebody
// inside. It returns the form, and what a recipient notices of it.
func (m *combiner) bearing(indexes []int) (Bearing, look) {
	var seen []look
	var who []int
	outside, observed := false, false
	for _, i := range indexes {
		l := m.look(i)
		switch {
		case l.observe:
			observed = true
		case l.outbound:
			outside = true
		default:
			seen, who = append(seen, l), append(who, i)
		}
	}
	warns := slices.ContainsFunc(seen, func(l look) bool { return l.flag || l.class != verdict.ClassClean })
	switch {
	case outside && !warns:
		return Bearing{Outbound: true}, look{outbound: true}
	case len(seen) == 0 && observed:
		return Bearing{Untouched: true}, look{observe: true}
	case len(seen) == 0:
		return Bearing{}, look{}
	}
	b := Bearing{Required: m.ds[who[0]].Mark}
	tag, unchecked := seen[0].tag, seen[0].unchecked
	if outside || observed {
		tag, unchecked = "", ""
	}
	top := -1
	for n, l := range seen {
		d := &m.ds[who[n]]
		b.SpamFields, b.Flag = b.SpamFields || l.fields, b.Flag || l.flag
		b.Required = min(b.Required, d.Mark)
		if top < 0 || d.Score > m.ds[top].Score {
			top = who[n]
		}
		if l.class > b.Class {
			b.Class, b.Cause = l.class, d.Cause
		}
		if l.tag != tag {
			tag = ""
		}
		if l.unchecked != unchecked {
			unchecked = ""
		}
	}
	b.Score, b.Symbols = m.ds[top].Score, m.ds[top].Symbols
	for _, t := range []string{tag, unchecked} {
		if t != "" {
			b.Tags = append(b.Tags, t)
		}
	}
	return b, look{fields: b.SpamFields, flag: b.Flag, tag: tag, unchecked: unchecked, class: b.Class}
}
