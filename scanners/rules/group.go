package rules

import (
	"cmp"
	"slices"
	"strings"
)

// group holds the rules that look at one kind of text. Rules of which a literal
// is known are run only where the automaton has seen it; the others always.
type group struct {
	rules     []*rule
	automaton *automaton
	// always are the rules without a literal.
	always []*rule
}

// newGroup returns nil for no rules.
func newGroup(rules []*rule) *group {
	if len(rules) == 0 {
		return nil
	}
	g := &group{}
	var literals [][]string
	for _, u := range rules {
		if u.re == nil || u.re.literals == nil || u.negated {
			g.always = append(g.always, u)
			continue
		}
		g.rules = append(g.rules, u)
		literals = append(literals, u.re.literals)
	}
	g.automaton = newAutomaton(literals)
	return g
}

// run is the state of one message's evaluation.
type run struct {
	set    *Ruleset
	msg    *message
	clock  *clock
	values []float64
	// turn and seen keep a rule from being a candidate twice for one text.
	turn uint32
	seen []uint32
	// candidates is scratch space.
	candidates []*rule
}

// open reports whether another hit of u would count.
func (r *run) open(u *rule) bool { return r.values[u.slot] < float64(u.maxHits) }

// texts runs the group over lines: first what the automaton names, so that a
// budget that runs out costs the dear rules and not the telling ones.
func (r *run) texts(g *group, lines []string) {
	if g == nil {
		return
	}
	if g.automaton != nil {
		for i, line := range lines {
			r.prefiltered(g, line, i)
			if r.clock.spent() {
				return
			}
		}
	}
	for _, u := range g.always {
		for i, line := range lines {
			if !r.open(u) {
				break
			}
			if r.confirm(u, line, i); r.clock.spent() {
				return
			}
		}
	}
}

// prefiltered confirms the rules of which a literal stands in the line.
func (r *run) prefiltered(g *group, line string, index int) {
	r.turn++
	r.candidates = r.candidates[:0]
	g.automaton.find(line, func(o int32) {
		u := g.rules[o]
		if r.seen[u.slot] != r.turn {
			r.seen[u.slot] = r.turn
			r.candidates = append(r.candidates, u)
		}
	})
	if len(r.candidates) == 0 {
		return
	}
	text := line
	for _, u := range r.candidates {
		if r.open(u) {
			if r.confirm(u, text, index); r.clock.spent() {
				return
			}
		}
	}
}

// confirm runs a rule's pattern on text.
func (r *run) confirm(u *rule, text string, index int) {
	if u.noSubject && index == 0 && u.kind == kindBody {
		return
	}
	if u.maxHits > 1 {
		left := u.maxHits - int(r.values[u.slot])
		r.values[u.slot] += float64(u.re.count(text, left, r.clock))
		return
	}
	if u.re.match(text, r.clock) {
		r.values[u.slot] = 1
	}
}

// headerGroup holds the rules that look at the same field in the same way.
type headerGroup struct {
	target target
	*group
	all []*rule
}

type headerGroups struct{ by map[target]*headerGroup }

func newHeaderGroups() *headerGroups {
	return &headerGroups{by: make(map[target]*headerGroup)}
}

// pseudo-fields are told by their spelling, others without regard to case.
func (t target) key() target {
	switch t.name {
	case "ALL", "ToCc", "EnvelopeFrom", "MESSAGEID":
	default:
		t.name = strings.ToLower(t.name)
	}
	return t
}

func (h *headerGroups) add(u *rule) {
	k := u.target.key()
	g := h.by[k]
	if g == nil {
		g = &headerGroup{target: u.target}
		h.by[k] = g
	}
	g.all = append(g.all, u)
}

// done builds the groups, in one order.
func (h *headerGroups) done() []*headerGroup {
	out := make([]*headerGroup, 0, len(h.by))
	for _, g := range h.by {
		var patterns []*rule
		for _, u := range g.all {
			if !u.exists {
				patterns = append(patterns, u)
			}
		}
		g.group = newGroup(patterns)
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *headerGroup) int { return cmp.Compare(a.all[0].slot, b.all[0].slot) })
	return out
}

// field runs a group over the value it looks at. An absent field matches as the
// empty text, as in SpamAssassin.
func (r *run) field(g *headerGroup, value string, present bool) {
	if !present {
		for _, u := range g.all {
			if !u.exists && r.open(u) {
				r.fieldRule(u, u.unset)
			}
		}
		return
	}
	for _, u := range g.all {
		if u.exists {
			r.values[u.slot] = 1
		}
	}
	if g.group == nil {
		return
	}
	if g.automaton != nil {
		r.prefiltered(g.group, value, 1)
	}
	if len(g.always) == 0 {
		return
	}
	text := value
	for _, u := range g.always {
		if r.open(u) {
			r.fieldRule(u, text)
		}
	}
}

func (r *run) fieldRule(u *rule, text string) {
	if r.clock.spent() {
		return
	}
	if u.negated {
		if !u.re.match(text, r.clock) && !r.clock.spent() {
			r.values[u.slot] = 1
		}
		return
	}
	r.confirm(u, text, 1)
}
