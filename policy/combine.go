package policy

import (
	"slices"
	"strings"

	"sluice/internal/verdict"
)

// Notes that a Disposition bears.
const (
	NoteSplit      = "split reject"
	NoteCompromise = "compromise"
	NoteObserve    = "observe"
	NoteRelay      = "relay: reject not carried out as 5xx"
	NoteLocal      = "local submission: tempfail not carried out as 451"
)

// Outcome is what Combine makes of all decisions.
type Outcome struct {
	// Disposition has everything but Fields, which the gateway writes from Bearing.
	Disposition Disposition
	// Bearing is what the message that goes on shows of the verdict.
	Bearing Bearing
	// Carried is what is really done for each recipient, in the order of the
	// decisions: not always what was decided (a reject that SMTP can't express, a
	// 451 that others force, an observing policy, which accepts).
	Carried []verdict.Action
	// Keep lists what goes into the quarantine. Empty without Capabilities.Store.
	Keep []Keep
	// Copies are re-injected, each for some of the recipients, who are taken off the
	// message once their copy was accepted. Empty without Capabilities.Reinject.
	Copies []Copy
	// Split is the number of recipients whose reject SMTP could not express because
	// others were to get the message; Compromise that of recipients who see
	// something else than their policy says.
	Split, Compromise int
}

// Keep says that a recipient's copy is kept.
type Keep struct {
	// Index is the recipient's place among the decisions.
	Index int
	// Sole: nothing else is left of the mail for this recipient, so that it must be on
	// stable storage before the reply.
	Sole bool
}

// Copy is a copy that goes back to the MTA.
type Copy struct {
	// Indexes are the recipients' places among the decisions.
	Indexes []int
	Bearing Bearing
	// RedirectTo replaces the recipients, with the null sender; "" if they stay.
	RedirectTo string
}

// maxGroups bounds the forms in which one message goes on.
const maxGroups = 16

// Combine turns the decisions for all recipients into one disposition (DESIGN
// §4, "Several recipients, one milter reply"). ds and ps are in the order of the
// envelope; ps are the policies that decided (for originating mail see
// Originating). Without a store a message that any recipient rejects is refused
// as a whole, and what would have to be kept is deferred.
func Combine(c *Case, ds []verdict.Decision, ps []*Effective, can Capabilities) Outcome {
	m := combiner{c: c, ds: ds, ps: ps, can: can}
	m.out.Disposition.Decisions = ds
	if len(ds) == 0 || len(ds) != len(ps) {
		m.out.Disposition.Reply = deferral(verdict.ClassClean, c.ID)
		return m.out
	}
	m.carry()
	switch {
	case m.count(verdict.Tempfail) > 0:
		m.deferAll()
	case m.count(verdict.Reject) > 0 && !m.split():
	default:
		m.deliver()
	}
	for i, d := range ds {
		if ps[i].Observe && d.Action != verdict.Accept {
			m.note(NoteObserve)
		}
	}
	return m.out
}

// combiner is Combine at work.
type combiner struct {
	c   *Case
	ds  []verdict.Decision
	ps  []*Effective
	can Capabilities
	out Outcome
}

func (m *combiner) note(s string) {
	if !slices.Contains(m.out.Disposition.Notes, s) {
		m.out.Disposition.Notes = append(m.out.Disposition.Notes, s)
	}
}

// carry finds what each action becomes for this kind of mail and this build.
func (m *combiner) carry() {
	m.out.Carried = make([]verdict.Action, len(m.ds))
	for i := range m.ds {
		m.out.Carried[i] = m.carryOut(&m.ds[i], m.ps[i])
	}
}

func (m *combiner) carryOut(d *verdict.Decision, p *Effective) verdict.Action {
	a := d.Action
	switch {
	case p.Observe:
		return verdict.Accept
	case a == verdict.Reject && m.c.Relay: // case 6: a 5xx would bounce to a forged sender
		m.note(NoteRelay)
		a = verdict.Quarantine
	case a == verdict.Tempfail && m.c.Local && d.Class != verdict.ClassFailed: // case 7
		m.note(NoteLocal)
		a = verdict.Quarantine
	case a == verdict.Redirect && p.RedirectTo == "":
		a = verdict.Quarantine
	}
	if m.can.Store || a != verdict.Quarantine && a != verdict.Redirect {
		return a
	}
	if m.c.Local && d.Class != verdict.ClassFailed { // Postfix tells the user
		return verdict.Reject
	}
	return verdict.Tempfail
}

func (m *combiner) count(a verdict.Action) int {
	n := 0
	for _, b := range m.out.Carried {
		if a == b {
			n++
		}
	}
	return n
}

// worst is the recipient whose action is carried out as a and whose class is the
// gravest; of those the first.
func (m *combiner) worst(a verdict.Action) int {
	worst := -1
	for i, b := range m.out.Carried {
		if a == b && (worst < 0 || m.ds[i].Class > m.ds[worst].Class) {
			worst = i
		}
	}
	return worst
}

// deferAll is case 4: 451 for all, nothing done.
func (m *combiner) deferAll() {
	class := verdict.ClassClean
	if i := m.worst(verdict.Tempfail); i >= 0 {
		class = m.ds[i].Class
	}
	m.out.Disposition.Reply = deferral(class, m.c.ID)
	for i := range m.out.Carried {
		m.out.Carried[i] = verdict.Tempfail
	}
}

// gets reports whether the original message goes on for recipient i, to him or
// to whom his is redirected.
func (m *combiner) gets(i int) bool {
	a := m.out.Carried[i]
	return a.Delivers() || a == verdict.Redirect && !m.can.Reinject
}

// split is case 3. It reports whether the message goes on for others in spite of
// rejects; if not, the reply is written.
func (m *combiner) split() bool {
	others, observed := false, false
	for i := range m.ds {
		others = others || m.gets(i)
		observed = observed || m.ps[i].Observe
	}
	rejects := m.count(verdict.Reject)
	if others {
		m.out.Split = rejects
		m.note(NoteSplit)
	}
	switch {
	case !others:
		m.refuse()
		m.keep(false)
		m.redirect()
		return false
	case m.can.Store:
		for i, a := range m.out.Carried {
			if a == verdict.Reject {
				m.out.Carried[i] = verdict.Quarantine
			}
		}
		return true
	case observed: // who only tries a policy out gets no 5xx that others cause
		i := m.worst(verdict.Reject)
		m.deferAll()
		m.out.Disposition.Reply = deferral(m.ds[i].Class, m.c.ID)
		return false
	}
	m.refuse()
	for i := range m.out.Carried {
		m.out.Carried[i] = verdict.Reject
	}
	return false
}

func (m *combiner) refuse() {
	i := m.worst(verdict.Reject)
	m.out.Disposition.Reply = refusal(&m.ds[i], m.ps[i].RejectText, m.c.ID)
}

// deliver is cases 1, 2 and 5: the message goes on for whoever gets it, the
// others are taken off. Nobody left: it is thrown away with 250.
func (m *combiner) deliver() {
	disp := &m.out.Disposition
	var getters []int
	left := false
	for i := range m.ds {
		if m.out.Carried[i].Delivers() {
			getters = append(getters, i)
		}
		left = left || m.gets(i)
	}
	m.keep(true)
	m.redirect()
	if !left {
		disp.Discard = true
		return
	}
	removed := map[string]bool{}
	for i, d := range m.ds {
		if !m.out.Carried[i].Delivers() && !removed[d.Recipient] {
			removed[d.Recipient] = true
			disp.RemoveRecipients = append(disp.RemoveRecipients, d.Recipient)
		}
	}
	if len(getters) > 0 {
		m.bear(getters)
	}
}

// redirect sends what is redirected on: through re-injection, else by adding the
// target to the message.
func (m *combiner) redirect() {
	if m.count(verdict.Redirect) == 0 {
		return
	}
	disp := &m.out.Disposition
	copies, among := map[string]int{}, map[string]bool{}
	for i, a := range m.out.Carried {
		if a.Delivers() {
			among[strings.ToLower(m.ds[i].Recipient)] = true
		}
	}
	for i, a := range m.out.Carried {
		if a != verdict.Redirect {
			continue
		}
		to := m.ps[i].RedirectTo
		if !m.can.Reinject {
			if key := strings.ToLower(to); !among[key] {
				among[key] = true
				disp.AddRecipients = append(disp.AddRecipients, to)
			}
			continue
		}
		n, ok := copies[to]
		if !ok {
			n = len(m.out.Copies)
			copies[to] = n
			b, _ := m.bearing([]int{i})
			m.out.Copies = append(m.out.Copies, Copy{RedirectTo: to, Bearing: b})
		}
		m.out.Copies[n].Indexes = append(m.out.Copies[n].Indexes, i)
	}
}

// keep lists the copies that are kept. accepted is false if the sender is told
// 5xx: then a rejected copy isn't the only one, but one in the quarantine is.
func (m *combiner) keep(accepted bool) {
	if !m.can.Store {
		return
	}
	for i, a := range m.out.Carried {
		p := m.ps[i]
		listed := slices.ContainsFunc(m.ds[i].Classes, func(c verdict.Class) bool { return slices.Contains(p.Quarantine, c) })
		switch {
		case a == verdict.Quarantine:
			m.out.Keep = append(m.out.Keep, Keep{i, accepted})
		case listed && (a == verdict.Discard || a == verdict.Redirect):
			m.out.Keep = append(m.out.Keep, Keep{i, accepted})
		case listed && a == verdict.Reject:
			m.out.Keep = append(m.out.Keep, Keep{i, false})
		}
	}
}
